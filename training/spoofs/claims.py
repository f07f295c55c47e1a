"""Which process makes what: each item is a byte of one lock file, which the process that makes it has locked.

The kernel drops the locks of a process that dies, however it dies, and NFS servers know them. Where the file system has
no locks, one process alone may work, which is said.
"""

from __future__ import annotations

import fcntl
import io
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from training.runs.lock import LOCKS_UNSUPPORTED
from utils.console import say
from utils.regular_files import open_to_append
from utils.waiting import telling

_LOOK_EVERY_S = 0.1
BEGINNING_AND_END = 0
"""The item that a process has while it looks at what is there at its start, and while it finishes."""


class Claims:
    """The lock file `path`, open within a `with` block; never open it elsewhere in this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._has_locks = True

    def __enter__(self) -> Self:
        """Open the file, or make it; raises OSError."""
        self._file = open_to_append(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            with suppress(OSError):
                self._file.close()  # which drops all locks
        self._file = None

    def take(self, item: int) -> bool:
        """Return whether this process has the item now, which no other one has."""
        try:
            self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, item)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def wait_for(self, item: int, what: str) -> None:
        """Return when this process has the item; a signal ends the wait where it raises.

        After 30 s, and then rarely, it is told that another process makes `what`.
        """
        with telling(lambda: f"another process, which makes {what}") as tell:
            while not self.take(item):
                time.sleep(_LOOK_EVERY_S)
                tell()

    def give_back(self, item: int) -> None:
        """Let others take the item."""
        self._lock(fcntl.LOCK_UN, item)

    def remove(self) -> None:
        """Remove the file, by a process that has the item of the end; not one that others have made since."""
        assert self._file is not None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file.fileno()), self._path.lstat()):
                self._path.unlink()

    def _lock(self, how: int, item: int) -> None:
        assert self._file is not None
        if not self._has_locks:
            return
        try:
            fcntl.lockf(self._file, how, 1, item)
        except OSError as error:
            if error.errno not in LOCKS_UNSUPPORTED:
                raise
            self._has_locks = False
            say(
                f"[NOTE] {self._path.parent}: the file system cannot lock files ({error.strerror}), so start no second "
                "process with this command"
            )
