"""Opens what is a regular file and nothing else: a named pipe would wait for ever, a device never ends."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotARegularFileError(OSError):
    """What lies there is no file that can be read to its end; `strerror` says what it is."""


def open_regular(path: str | os.PathLike[str], *, buffering: int = -1) -> BinaryIO:
    """Open the file at `path`, or the one that a link there leads to, for reading in binary.

    `buffering` is that of the built-in open(). Never waits for the other end of a pipe, and never opens a device, which
    could do something when opened. Raises NotARegularFileError, and OSError as open() does.
    """
    _insist(os.stat(path), path)  # noqa: PTH116 - a Path for each file of an epoch would cost
    # Whatever took the name since then is not waited for either.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _insist(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb", buffering=buffering)
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return the whole content of the regular file at `path`; raises as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def is_regular(path: Path) -> bool:
    """Return whether a regular file, or a link to one, lies at `path`."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _insist(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise NotARegularFileError(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))
