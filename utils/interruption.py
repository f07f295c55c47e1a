"""Ctrl-C and SIGTERM as a request to stop after the step, SIGUSR1 as one to save after it and go on.

    with stop_on_signals() as stop:
        for batch in batches:
            step(batch)
            if stop.take_save_request():
                save()
            if stop.requested:
                save()
                sys.exit(stop.exit_code)

What each signal does, and the test in tests/test_interruption.py that holds it:

1. The first one is recorded and announced in one line on stderr; nothing is raised
   (`test_the_first_signal_lets_the_step_finish_and_sets_the_exit_code`).
2. A second Ctrl-C raises KeyboardInterrupt where the program stands, saving nothing
   (`test_a_second_ctrl_c_stops_at_once`).
3. Any number of SIGTERM, as schedulers repeat it, still lets the step finish (`test_repeated_sigterm_still_saves`).
4. Child processes that were forked neither announce nor swallow it
   (`test_forked_children_neither_announce_nor_swallow`); those that load data ignore both (training/data/workers.py).
5. A signal that the process was started to ignore stays ignored, as for a script's background job
   (`test_a_signal_ignored_from_the_start_stays_ignored`).
6. SIGUSR1, which batch systems send to every process of a job before its time is up, asks for a save; a second one
   before that save is the same request (`test_sigusr1_asks_for_a_save_and_ends_nothing`). Outside the block it does
   nothing once `ignore_save_requests` was called (`test_before_and_after_training_sigusr1_is_harmless`).

Not covered: SIGHUP (use nohup), SIGKILL (nothing can), and code that holds the interpreter for longer than the grace
period of a scheduler: Python runs a handler between two instructions. So the main thread waits for nothing that may
never come (utils/waiting.py), and a Ctrl-C that means "at once" needs no handler (utils/ending.py).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_STDERR = 2
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAVE_SIGNAL: signal.Signals | None = getattr(signal, "SIGUSR1", None)  # None where there is no such signal
_ANNOUNCEMENT = {
    signal.SIGINT: "Ctrl-C: finishing the step, then saving; a second Ctrl-C stops at once without saving",
    signal.SIGTERM: "SIGTERM: finishing the step, then saving; Ctrl-C twice stops at once without saving",
}


class StopRequest:
    """Whether, and by which signal, the process was asked to stop, and whether to save; `stop_on_signals` fills it in.

    >>> stop = StopRequest()
    >>> stop.requested, stop.save_requested, stop.exit_code
    (False, False, 0)
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.save_requested = False
        self.is_overtaken = False

    @property
    def requested(self) -> bool:
        """Whether a signal has come, or the other processes of the run cannot go on."""
        return self.signal is not None or self.is_overtaken

    def overtake(self) -> None:
        """End what waits for a request, since the other processes of the run have stopped."""
        self.is_overtaken = True

    @property
    def exit_code(self) -> int:
        """128 + the number of the first signal, as a shell reports it: 130 for SIGINT, 143 for SIGTERM; else 0."""
        return 0 if self.signal is None else 128 + self.signal

    def take_save_request(self) -> bool:
        """Return whether a save was asked for since the last call; the save that follows answers it."""
        if not self.save_requested:
            return False
        # Not reset above: a request that comes in between the two lines would be lost.
        self.save_requested = False
        return True


def ignore_save_requests() -> None:
    """Let SIGUSR1 do nothing where nothing is trained; its default action would end the process."""
    if _SAVE_SIGNAL is not None:
        signal.signal(_SAVE_SIGNAL, signal.SIG_IGN)


@contextmanager
def stop_on_signals(*, announces: bool = True) -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM and SIGUSR1 into a `StopRequest` inside the block, and put back what was set before.

    One of several processes of a run may leave it to another to say so: without `announces` nothing is printed.
    Outside the main thread, where Python allows no handlers, it changes nothing and the request is never made. Raises
    KeyboardInterrupt out of the block at a second SIGINT.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers = _Handlers(stop, announces)
    try:
        handlers.install()
        yield stop
    finally:
        handlers.restore()


class _Handlers:
    """The handlers of one block, and those that were there before it."""

    def __init__(self, stop: StopRequest, announces: bool) -> None:
        self._stop = stop
        self._announces = announces
        self._process = os.getpid()
        self._interrupted = False
        ignored = {number for number in _STOP_SIGNALS if signal.getsignal(number) is signal.SIG_IGN}
        handled = [number for number in _STOP_SIGNALS if number not in ignored]
        handled += [] if _SAVE_SIGNAL is None else [_SAVE_SIGNAL]
        self._earlier = {number: signal.getsignal(number) for number in handled}

    def install(self) -> None:
        for number in self._earlier:
            signal.signal(number, self._receive)

    def restore(self) -> None:
        for number, handler in self._earlier.items():
            # None: a handler that was not set from Python, and cannot be set from it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._receive_in_forked_child(number)
            return
        if number == _SAVE_SIGNAL:
            if not self._stop.save_requested:
                self._stop.save_requested = True
                self._announce("SIGUSR1: saving after this step, then going on")
            return
        if number == signal.SIGINT and self._interrupted:
            self.restore()
            raise KeyboardInterrupt
        self._interrupted = self._interrupted or number == signal.SIGINT
        if self._stop.signal is None:
            self._stop.signal = signal.Signals(number)
            self._announce(_ANNOUNCEMENT[self._stop.signal])

    def _announce(self, text: str) -> None:
        if self._announces:
            _announce(text)

    @staticmethod
    def _receive_in_forked_child(number: int) -> None:
        """The parent judges Ctrl-C and SIGUSR1; SIGTERM is how it ends its child, and does what it always does."""
        if number == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)


def _announce(text: str) -> None:
    """Write one line past sys.stderr: a handler may have interrupted that object in the middle of its own writing."""
    if sys.__stderr__ is None:  # started without a stderr: its number may be that of a checkpoint by now
        return
    # A terminal's cursor stands behind "^C" or a progress bar.
    start = "\n" if os.isatty(_STDERR) else ""
    with suppress(OSError):  # a closed pipe or a full disk is no reason not to save
        os.write(_STDERR, f"{start}{text}\n".encode())
