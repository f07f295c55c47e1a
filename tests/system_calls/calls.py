"""One system call, read from a thread that the kernel has stopped at it: which paths it is about, what it did."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.system_calls import ptrace
from tests.system_calls.numbers import BY_DESCRIPTOR, BY_PATH, KINDS, READING_BY_DESCRIPTOR, READING_BY_PATH

_AT_FDCWD = -100
_FOLLOW = 0x400  # AT_SYMLINK_FOLLOW
_APPEND = 0x10  # RWF_APPEND
_CLONES = (0x40049409, 0x4020940D)  # FICLONE, FICLONERANGE
_OWN_PROCESS = re.compile(r"^/proc/self(?=/|$)")
_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}
_DESCRIPTOR_AT = {**BY_DESCRIPTOR, **READING_BY_DESCRIPTOR}
_PATHS_AT = {**BY_PATH, **READING_BY_PATH}
_FLAGS_AT = {"open": 1, "openat": 2, "renameat2": 4, "unlinkat": 2, "linkat": 4, "fallocate": 1}
_MODE_AT = {"open": 2, "openat": 3, "mkdir": 1, "mkdirat": 2, "chmod": 1, "fchmod": 1, "fchmodat": 2}
_OFFSET_AT = {"pwrite64": 3, "pwritev": 3, "pwritev2": 3, "fallocate": 2}
_LENGTH_AT = {"truncate": 1, "ftruncate": 1, "fallocate": 3}


class UnknownCallError(Exception):
    """The program made a call that may have changed a watched folder in a way that nobody has thought of."""


@dataclass(frozen=True)
class Call:
    """One system call on something in a watched folder.

    `paths` are absolute, without links, as they were when the call began; `inodes` say what they led to then, 0 for
    nothing, and `made` what the call made or opened. `result` is what the kernel returned, whatever a fault then told
    the program: below 0 a negative errno. `data` are the bytes that a write left at `offset`, the target of a symbolic
    link, or nothing; `length` is theirs, or that of a truncation. `faulty` is set where a fault struck.
    """

    name: str
    process: int
    thread: int
    paths: tuple[str, ...]
    inodes: tuple[int, ...] = ()
    made: int = 0
    flags: int = 0
    mode: int = 0
    offset: int = 0
    length: int = 0
    data: bytes = field(default=b"", repr=False)
    result: int = 0
    faulty: bool = False

    @property
    def kind(self) -> str:
        """Its name among `KINDS`: "write" of pwritev2; its own where it is alone."""
        return _KIND_OF.get(self.name, self.name)


def begun(name: str, process: int, thread: int, arguments: Sequence[int], watched: Sequence[str]) -> Call | None:
    """Return what is known of a call when it begins; None where it is about nothing that is watched."""

    def number(where: int) -> int:
        return int(struct.unpack("i", struct.pack("I", arguments[where] & 0xFFFFFFFF))[0])

    flags = number(_FLAGS_AT[name]) if name in _FLAGS_AT else 0
    if name == "openat2":
        flags = struct.unpack("Q", ptrace.memory_of(process, arguments[2], 8) or bytes(8))[0]
    elif name == "creat":
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    call = Call(
        name,
        process,
        thread,
        (),
        flags=flags,
        mode=arguments[_MODE_AT[name]] & 0o7777 if name in _MODE_AT else 0,
        offset=arguments[_OFFSET_AT[name]] if name in _OFFSET_AT else 0,
        length=arguments[_LENGTH_AT[name]] if name in _LENGTH_AT else 0,
    )
    if name == "sync":
        return call
    if name in _DESCRIPTOR_AT:
        return _on_descriptor(call, number(_DESCRIPTOR_AT[name]), arguments, watched)
    found = []
    for folder_at, text_at in _PATHS_AT[name]:
        folder = number(folder_at) if folder_at is not None else _AT_FDCWD
        follow = (name == "linkat" and bool(flags & _FOLLOW)) or name == "truncate"
        found.append(_resolved(process, folder, ptrace.text_at(process, arguments[text_at]), follow))
    if not any(_is_watched(path, watched) for path in found):
        return None
    target = os.fsencode(ptrace.text_at(process, arguments[0])) if call.kind == "symlink" else b""
    return replace(call, paths=tuple(found), inodes=tuple(map(_inode_of, found)), data=target)


def _on_descriptor(call: Call, descriptor: int, arguments: Sequence[int], watched: Sequence[str]) -> Call | None:
    where = Path(f"/proc/{call.process}/fd/{descriptor}")
    try:
        path, inode = _path_of(where), where.stat().st_ino
    except OSError:
        return None  # no such descriptor: the call will fail
    if not _is_watched(path, watched):
        return None
    if call.name == "mmap":
        if int(_facts_of(call.process, descriptor)["flags"], 8) & os.O_ACCMODE == os.O_RDONLY:
            return None
        raise UnknownCallError(f"the program maps {path} into its memory to write: its writes cannot be seen")
    if call.name == "ioctl" and arguments[1] not in _CLONES:
        raise UnknownCallError(f"the program called ioctl({arguments[1]:#x}) of {path}")
    return replace(call, paths=(path,), inodes=(inode,))


def returned(call: Call, arguments: Sequence[int]) -> Call:
    """Add what is known once a call has returned: what it opened, made or wrote."""
    if call.result < 0:
        return call
    if call.kind == "open":
        opened = Path(f"/proc/{call.process}/fd/{call.result}")
        return replace(call, paths=(_path_of(opened),), made=opened.stat().st_ino)  # where links led
    if call.kind in ("mkdir", "symlink") or call.name in ("mknod", "mknodat"):
        return replace(call, made=_inode_of(call.paths[0]))
    if call.kind == "write" or call.name == "ioctl":
        return _with_written(call, arguments[BY_DESCRIPTOR[call.name]] & 0xFFFFFFFF, arguments)
    return call


def _with_written(call: Call, descriptor: int, arguments: Sequence[int]) -> Call:
    """Read back from the file what was written: nobody else has written since, as the others wait."""
    length, facts = call.result, _facts_of(call.process, descriptor)
    file = Path(f"/proc/{call.process}/fd/{descriptor}")
    appends = int(facts["flags"], 8) & os.O_APPEND or (call.name == "pwritev2" and arguments[5] & _APPEND)
    if call.name == "ioctl":
        offset, length = 0, file.stat().st_size
    elif appends:
        offset = file.stat().st_size - length
    elif call.name in _OFFSET_AT and call.offset < 2**63:
        offset = call.offset
    elif call.name in ("copy_file_range", "splice") and arguments[3]:
        offset = struct.unpack("q", ptrace.memory_of(call.process, arguments[3], 8))[0] - length
    else:
        offset = int(facts["pos"]) - length
    reading = os.open(file, os.O_RDONLY)
    try:
        data = os.pread(reading, length, offset)
    finally:
        os.close(reading)
    return replace(call, offset=offset, length=length, data=data)


def _facts_of(process: int, descriptor: int) -> dict[str, str]:
    text = Path(f"/proc/{process}/fdinfo/{descriptor}").read_text()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _is_watched(path: str, watched: Sequence[str]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in watched)


def _path_of(descriptor: Path) -> str:
    """Return the last path of an open file, which /proc marks where it has been deleted since."""
    return str(descriptor.readlink()).removesuffix(" (deleted)")


def _resolved(process: int, folder: int, text: str, follow: bool) -> str:
    """Return an absolute path whose folder has no links in it; its last part may be one unless `follow`."""
    text = _OWN_PROCESS.sub(f"/proc/{process}", text)
    if not text.startswith("/"):
        with contextlib.suppress(OSError):
            base = Path(f"/proc/{process}/cwd" if folder == _AT_FDCWD else f"/proc/{process}/fd/{folder}").readlink()
            text = f"{base}/{text}" if text else str(base)
    if follow:
        return os.path.realpath(text)
    head, last = os.path.split(text.rstrip("/") or "/")
    return f"{os.path.realpath(head).rstrip('/')}/{last}"


def _inode_of(path: str) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return 0
