"""What the thread that saves must know of the one that trains: is the save still wanted, and does training wait?"""

from __future__ import annotations

import errno
import threading
import time


class SaveCancelledError(OSError):
    """Raised within a save that is no longer wanted: to whoever writes it is as if the disk refused."""

    def __init__(self) -> None:
        super().__init__(errno.ECANCELED, "the save was cancelled")


class AwaitedError(OSError):
    """Raised within work that can be done another time, because training waits for the save to end."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "training waits")


class SaveControl:
    """The messages from the loop's thread to the one that saves.

    `heard_at_s` is when the save last began to write something, by the clock of time.monotonic.
    `keeps_payload` is true while the payload of the save stays as it is: one that training goes on to change never
    does, and a copy does until its memory is needed again.

    >>> control = SaveControl()
    >>> control.check()
    >>> control.cancel()
    >>> control.check()
    Traceback (most recent call last):
    ...
    training.saving.save_control.SaveCancelledError: [Errno 125] the save was cancelled
    """

    def __init__(self, *, keeps_payload: bool = False) -> None:
        self.keeps_payload = keeps_payload
        self.heard_at_s = time.monotonic()
        self._cancelled = threading.Event()
        self._awaited = threading.Event()

    def cancel(self) -> None:
        """Say that the save is not wanted any more."""
        self._cancelled.set()

    def hurry(self) -> None:
        """Say that training waits for the save to end."""
        self._awaited.set()

    def check(self) -> None:
        """Raise SaveCancelledError if the save is not wanted any more; to be called before each write."""
        self.heard_at_s = time.monotonic()
        if self._cancelled.is_set():
            raise SaveCancelledError

    def check_nobody_waits(self) -> None:
        """Raise AwaitedError if training waits; to be called within what can be done after a later save as well."""
        self.check()
        if self._awaited.is_set():
            raise AwaitedError
