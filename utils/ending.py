"""Ends the process in time, whatever would hold it up: threads that wait for a dead disk, a library that sends.

Python joins threads and child processes before it ends, and libraries have their own farewells; none of them may keep
a process that was told to stop. What matters is on disk by then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

from utils.errors import EXIT_INTERRUPTED

_AT_ONCE_WITHIN_S = 8.0
_AT_ONCE = 2  # so many of Ctrl-C mean: at once
_SIGNALS_AT_A_TIME = 64


def leave_now(exit_code: int) -> NoReturn:
    """End the process without the interpreter's farewell, which takes torch a second and a busy machine half a minute.

    What was printed is handed over; what was saved is on disk.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)


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
            time.sleep(_AT_ONCE_WITHIN_S)
            os._exit(EXIT_INTERRUPTED)
