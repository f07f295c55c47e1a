"""Opens what is a regular file and nothing else: a named pipe would wait for ever, a device never ends."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

from utils.terminal_text import bytes_text

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
}


class NotARegularFileError(OSError):
    """What lies there is no file that can be read to its end; `strerror` says what it is."""


class TooLargeError(OSError):
    """A file is larger than any of its kind; `strerror` says how large one may be."""


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


def open_to_append(path: str | os.PathLike[str]) -> io.FileIO:
    """Open the regular file at `path` for reading, and for writing at its end; it is made where there is none.

    Never follows a link, so that what one leads to is not written to. Raises as `open_regular` does.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
    if os.path.lexists(path):
        _insist(Path(path).lstat(), path)
    descriptor = os.open(path, flags, 0o666)
    try:
        _insist(os.fstat(descriptor), path)
        return io.FileIO(descriptor, "a+")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], most_bytes: int | None = None) -> bytes:
    """Return the whole content of the regular file at `path`; raises as `open_regular` does.

    Raises TooLargeError, before it has read more, for one of more than `most_bytes`.
    """
    with open_regular(path) as file:
        if most_bytes is None:
            return file.read()
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise TooLargeError(errno.EFBIG, f"it has more than {bytes_text(most_bytes)}", os.fspath(path))
    return content


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
