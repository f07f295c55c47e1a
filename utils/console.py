"""Says things on standard output, at once; a terminal or pipe that went away never ends a run."""

from __future__ import annotations

import io
import os
import sys
import traceback
from types import TracebackType

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


def silence() -> None:
    """Say nothing from now on: another process of the run does. A bug still shows where it is."""
    sys.stdout, sys.stderr = (open(os.devnull, "w") for _ in range(2))  # noqa: PTH123, SIM115
    sys.excepthook = _show_bug


def speak() -> None:
    """Say things again, for the process that did is no more."""
    sys.stdout, sys.stderr = sys.__stdout__ or sys.stdout, sys.__stderr__ or sys.stderr


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    traceback.print_exception(kind, error, trace, file=sys.__stderr__)
