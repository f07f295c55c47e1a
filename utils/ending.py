"""Ends the process in time, whatever would hold it up: threads that wait for a dead disk, a library that sends.

Python joins threads and child processes before it ends, and libraries have their own farewells; none of them may keep
a process that was told to stop. What matters is on disk by then.
"""

from __future__ import annotations

import os
import signal
import threading
import time

from utils.errors import EXIT_INTERRUPTED

LEAVE_WITHIN_S = 2.0
_AT_ONCE_WITHIN_S = 8.0
_AT_ONCE = 2  # so many of Ctrl-C mean: at once
_SIGNALS_AT_A_TIME = 64


def leave_in_time(exit_code: int) -> None:
    """Let the process end with this code, in 2 s at the latest: signals no longer change it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(LEAVE_WITHIN_S, exit_code), name="leaving", daemon=True).start()


def insist_on_ctrl_c() -> None:
    """Let Ctrl-C end the process 8 s after it was to stop at once, if it has not by then.

    The second one means that, and the first one where nothing else was set for it. The main thread may not come to hear
    of them: Python calls handlers there, once a system call that waits for a dead disk returns. The number of each
    signal is written into a pipe by Python's own handler in C, wherever the process is (`signal.set_wakeup_fd`).
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    threading.Thread(target=_insist, args=(read_end,), name="insisting on Ctrl-C", daemon=True).start()


def _insist(read_end: int) -> None:
    count = 0
    while numbers := os.read(read_end, _SIGNALS_AT_A_TIME):
        count += numbers.count(signal.SIGINT)
        if count >= _AT_ONCE or (count and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
            _end_after(_AT_ONCE_WITHIN_S, EXIT_INTERRUPTED)


def _end_after(seconds: float, exit_code: int) -> None:
    time.sleep(seconds)
    os._exit(exit_code)
