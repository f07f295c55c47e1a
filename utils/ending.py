"""Ends the process at once, or in time, whatever would hold it up: an import, a dead disk, a library that sends.

Python joins threads and child processes before it ends, and libraries have their own farewells; none of them may keep
a process that was told to stop. What matters is on disk by then.

Ctrl-C and SIGTERM mean "at once" wherever nothing else was set for them, as utils/interruption.py does while something
is trained: KeyboardInterrupt, or its kind `StoppedBySigterm`, is raised where the program stands.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_AT_ONCE_WITHIN_S = 8.0
_AT_ONCE = 2  # so many of Ctrl-C mean: at once
_SIGNALS_AT_A_TIME = 64
_STDERR = 2
_PROCESS = os.getpid()


class StoppedBySigterm(KeyboardInterrupt):
    """SIGTERM, where it ends what is done at once as Ctrl-C does."""


def stop_of(raised: KeyboardInterrupt) -> signal.Signals:
    """Return which signal it was: 128 + its number is the exit code, as a shell reports it."""
    return signal.SIGTERM if isinstance(raised, StoppedBySigterm) else signal.SIGINT


def leave_on_signals() -> None:
    """Let Ctrl-C and SIGTERM end the process with a sentence, as long as nothing is done yet, or all is.

    A signal that the process was started to ignore stays ignored.
    """
    _handle(_leave)


def raise_on_signals() -> None:
    """Let Ctrl-C and SIGTERM raise from now on; but end the process, with a sentence, while a module is imported.

    What is raised in an import may be taken for a missing module, and the program would go on with half of numpy.
    """
    _handle(_raise)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(_STDERR, b"\nStopped at once\n")
    os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _PROCESS:  # a fork, in which signals do what they always do
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.kill(os.getpid(), number)
    elif _is_importing(frame):
        _leave(number, frame)
    elif number == signal.SIGINT:
        raise KeyboardInterrupt
    else:
        signal.signal(number, _stopping)
        raise StoppedBySigterm


def _is_importing(frame: FrameType | None) -> bool:
    while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def _stopping(_number: int, _frame: FrameType | None) -> None:
    """Let no further SIGTERM, which schedulers repeat, interrupt what the first one leads to."""


_AT_ONCE_HANDLERS = (signal.default_int_handler, _leave, _raise, _stopping)


def leave_now(exit_code: int) -> NoReturn:
    """End the process without the interpreter's farewell, which takes torch a second and a busy machine half a minute.

    What was printed is handed over; what was saved is on disk.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)


def insist_on_stop() -> None:
    """Let Ctrl-C or SIGTERM end the process 8 s after it was to stop at once, if it has not by then.

    The second Ctrl-C means that, and the first signal where nothing else was set for it. The main thread may not come
    to hear of them: Python calls handlers there, once a system call that waits for a dead disk returns. The number of
    each signal is written into a pipe by Python's own handler in C, wherever the process is (`signal.set_wakeup_fd`).
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    threading.Thread(target=_insist, args=(read_end,), name="insisting on a stop", daemon=True).start()


def _insist(read_end: int) -> None:
    count = 0
    while numbers := os.read(read_end, _SIGNALS_AT_A_TIME):
        count += numbers.count(signal.SIGINT)
        if count >= _AT_ONCE or (count and signal.getsignal(signal.SIGINT) in _AT_ONCE_HANDLERS):
            time.sleep(_AT_ONCE_WITHIN_S)
            os._exit(128 + signal.SIGINT)
        if signal.SIGTERM in numbers and signal.getsignal(signal.SIGTERM) in _AT_ONCE_HANDLERS:
            time.sleep(_AT_ONCE_WITHIN_S)
            os._exit(128 + signal.SIGTERM)
