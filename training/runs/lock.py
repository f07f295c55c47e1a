"""One process writes at a place: a lock that a dead process cannot hold, and one that is taken again if it is lost."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from utils.atomic_files import make_folder
from utils.console import say
from utils.errors import UserError
from utils.regular_files import open_regular, open_to_append
from utils.terminal_text import printable

_MOST_BYTES = 1000
LOCKS_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class FileLock:
    """A lock file, held inside a `with` block.

    A POSIX record lock: the kernel drops it when the process dies, however it dies, forked data loader workers do not
    inherit it, and NFS servers know it. The file itself stays; it says who held the lock last. Never open that file
    elsewhere in this process: closing it would drop the lock. `busy` begins the sentence that refuses a second process
    and `advice` ends it, with the holder's name between them; `unnoticed` says what a file system without locks means.
    """

    def __init__(self, path: Path, *, busy: str, advice: str, unnoticed: str) -> None:
        self._path = path
        self._busy, self._advice, self._unnoticed = busy, advice, unnoticed
        self._file: io.FileIO | None = None

    def __enter__(self) -> Self:
        """Take the lock; raises UserError that names the host and process which hold it, and OSError."""
        self._file = self._locked()
        self._write_own_name()
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()

    def _is_in_place(self) -> bool:
        try:
            return self._file is not None and os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:  # it is gone, or its server forgot it: taking it again tells what is wrong
            return False

    def _locked(self) -> io.FileIO:
        file = open_to_append(self._path)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = self._holder(file) or "unknown"
            file.close()
            raise UserError(f"{self._busy} ({holder}): {self._advice}") from error
        except OSError as error:
            if error.errno not in LOCKS_UNSUPPORTED:
                file.close()
                raise
            say(
                f"[NOTE] {self._path.parent}: the file system cannot lock files ({error.strerror}), "
                f"so a second process {self._unnoticed}"
            )
        return file

    def _write_own_name(self) -> None:
        assert self._file is not None
        try:
            self._file.truncate(0)
            self._file.write(f"{_own_name()}\n".encode())
        except OSError:
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Give the lock back, which closing its file does whatever the disk says; it holds no more than a name."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = None

    @staticmethod
    def _holder(file: io.FileIO) -> str:
        file.seek(0)
        return printable(file.read(_MOST_BYTES).decode(errors="replace").strip())


class RunLock(FileLock):
    """The lock file of a run folder, held inside a `with` block."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            busy=f"another process trains in {path.parent}",
            advice="wait for it, stop it, or name this run differently with --comment",
            unnoticed="in this run folder would not be noticed",
        )

    def ensure(self) -> str | None:
        """Make sure that what is saved next is saved in a folder this process holds; to be called before each save.

        Somebody may have removed the folder, or its disk may have been unmounted, while the process trained: then it
        is made and locked again, and the sentence that tells so is returned, for this may run in a thread that must not
        print. Raises UserError where another process has begun a run there meanwhile, even if that
        one is dead, since its checkpoints would be overwritten; OSError where the disk refuses.
        """
        if self._is_in_place():
            return None
        self._let_go()
        make_folder(self._path.parent)
        self._file = self._locked()
        holder = self._holder(self._file)
        if holder == _own_name():  # a file system whose inode numbers changed, or that was mounted again
            return None
        if holder:
            self._let_go()
            raise UserError(
                f"{self._path.parent} was removed while this process trained, and another one ({holder}) has trained "
                "there since: move that run away, and the next save makes the folder again"
            )
        self._write_own_name()
        return (
            f"{self._path.parent} was removed, replaced or unmounted while this process trained: "
            "it was made and locked again, and what is saved from now on is there"
        )


@contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Yield whether nobody held the lock file `path`, which this process then holds inside the block.

    The file is made where there is none, as after a power cut that took its name. False too where the file system has
    no locks. Not for a lock of this process, which would be dropped.
    """
    try:
        file = open_to_append(path)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            is_free = False
        else:
            is_free = True
        yield is_free
    finally:
        with suppress(OSError):
            file.close()


def is_let_go(path: Path) -> bool:
    """Whether a lock file is there that no process holds; changes nothing. Not for a lock of this process.

    False too where that cannot be known.
    """
    try:
        with open_regular(path) as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _own_name() -> str:
    return f"host {socket.gethostname()}, process {os.getpid()}"
