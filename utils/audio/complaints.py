"""What libmpg123 writes on stderr while it decodes a damaged MP3 file, caught so that it can be told with a name.

The library writes to the variable `stderr` of C, which the manual of the GNU C library (section "Standard Streams")
allows to be set: while an MP3 file is decoded it leads into a file in memory. The descriptor 2, which Python writes to,
stays as it is. With another C library nothing is caught.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_MOST_BYTES = 4096
_UNBUFFERED = 2  # _IONBF of glibc
_NO_DAMAGE = "Warning: Xing stream size off"  # something lies behind the sound, such as a tag


class Complaints:
    """What is heard of one file: `first` is the first complaint, "" for none."""

    def __init__(self) -> None:
        self.first = ""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch what is written meanwhile. Threads that decode at once hear each other: see `alone`."""
        log = _log(os.getpid())
        if log is None:
            yield
            return
        with _GATE.shared(log):
            begin = os.lseek(log.descriptor, 0, os.SEEK_END)
            yield
            self.first = self.first or _first_line(os.pread(log.descriptor, _MOST_BYTES, begin))


@contextmanager
def alone() -> Iterator[None]:
    """Let no other thread decode MP3 meanwhile, so that what this one hears is about its own file."""
    with _GATE.exclusive():
        yield


def _first_line(heard: bytes) -> str:
    """Return the first complaint without the place in the source of the library that it came from."""
    lines = heard.decode(errors="replace").split("\n")
    told = next((line for line in lines if line.strip() and not line.startswith(_NO_DAMAGE)), "")
    return told.rpartition("error: ")[2].removeprefix("Note: ").removeprefix("Warning: ").rstrip("!. ")


class _Log:
    """A file in memory and the C stream that writes to it."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        libc.fdopen.restype = ctypes.c_void_p
        libc.setvbuf.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
        self.descriptor = os.memfd_create("complaints")
        self._stream = libc.fdopen(self.descriptor, b"w")
        libc.setvbuf(self._stream, None, _UNBUFFERED, 0)
        self._stderr = ctypes.c_void_p.in_dll(libc, "stderr")
        self._before: int | None = None

    def begin(self) -> None:
        """Lead stderr here; what was heard before is forgotten."""
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self._before, self._stderr.value = self._stderr.value, self._stream

    def end(self) -> None:
        """Lead stderr back."""
        self._stderr.value = self._before


@cache
def _log(process: int) -> _Log | None:  # noqa: ARG001 - a worker process must not write into its parent's
    try:
        is_glibc = "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, OSError):
        return None
    return _Log() if is_glibc else None


class _Gate:
    """Many threads that decode at once, or one alone, which may come in again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._owner: int | None = None

    @contextmanager
    def shared(self, log: _Log) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._owner in (None, threading.get_ident()))
            if not self._inside:
                log.begin()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                if not self._inside:
                    log.end()
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._owner is None)
            self._owner = threading.get_ident()
            self._changed.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._changed:
                self._owner = None
                self._changed.notify_all()


_GATE = _Gate()
