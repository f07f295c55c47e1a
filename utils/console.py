"""Says things on standard output, at once; a terminal or pipe that went away never ends a run."""

from __future__ import annotations

import io
import os
import sys

from utils.terminal_text import printable_text


def say(text: str = "") -> None:
    """Print `text` and a line break, flushed, so that `tail -f nohup.out` shows it now.

    Names that are in it cannot act on the terminal (`printable`). A closed pipe or a full disk under nohup.out loses
    the line and nothing else.
    """
    try:
        sys.stdout.write(printable_text(text) + "\n")
        sys.stdout.flush()
    except OSError:
        pass


def prepare_output() -> None:
    """Let no output end a run: a terminal without emoji shows "?", and one that was closed shows nothing."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115  (None if file descriptor 1 is closed)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def drop_unread_output() -> None:
    """Discard what a reader that went away (`| head -1`) did not take, which the interpreter would complain of."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
