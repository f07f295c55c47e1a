"""Says things on standard output, at once; a terminal or pipe that went away never ends a run."""

from __future__ import annotations

import sys


def say(text: str = "") -> None:
    """Print `text` and a line break, flushed, so that `tail -f nohup.out` shows it now.

    A closed pipe or a full disk under nohup.out loses the line and nothing else.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        pass
