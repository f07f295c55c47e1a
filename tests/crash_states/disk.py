"""What recorded system calls did to a folder, as steps on inodes and names; the last of them must give what is there.

Names and inodes are told apart, as file systems do: a rename is a change of two entries, a hard link a second entry, a
write through a descriptor changes an inode whatever it is called by then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.system_calls.recorder import Call, UnknownCallError

Entry = tuple[int, str]
"""A name in a folder: the folder's inode, and the name."""
ROOT = 0
EVERYTHING = -1
_RENAME_EXCHANGE, _RENAME_NOREPLACE, _KEEP_SIZE = 2, 1, 1
_NO_CONTENT = """
chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat utime utimes futimesat utimensat sync_file_range
setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
"""


@dataclass(frozen=True)
class Step:
    """One change: `entries` get an inode or lose theirs, or a range of an inode's content or its length is changed.

    `data` None with a content's `inode` is a truncation to `offset`. `synced` is the inode whose content, or names if
    it is a folder, is durable from now on; EVERYTHING for all. `told` is what the program said by then. `thread` did
    it, and `call` is for people.
    """

    call: str
    entries: tuple[tuple[Entry, int | None], ...] = ()
    inode: int | None = None
    offset: int = 0
    data: bytes | None = None
    synced: int | None = None
    told: bytes = b""
    thread: int = 0

    @property
    def is_something(self) -> bool:
        """Whether this changes, syncs or tells anything."""
        return bool(self.entries or self.told) or self.inode is not None or self.synced is not None


@dataclass
class Disk:
    """Files, folders and links as they are at one moment: `names` lead to inodes, `contents` is what files hold.

    `links` are the targets of symbolic links, and `folders` the inodes that are folders.
    """

    names: dict[Entry, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    links: dict[int, str] = field(default_factory=dict)
    folders: set[int] = field(default_factory=lambda: {ROOT})

    def apply(self, step: Step) -> None:
        """Do one step."""
        for entry, inode in step.entries:
            if inode is None:
                self.names.pop(entry, None)
            else:
                self.names[entry] = inode
        if step.inode is not None:
            self.contents[step.inode] = changed(self.contents.get(step.inode, b""), step)

    def find(self, path: str) -> int | None:
        """Return the inode that a relative path leads to, its last part not followed."""
        found: int | None = ROOT
        for part in filter(None, path.split("/")):
            found = self.names.get((found, part)) if found is not None else None
        return found

    def paths(self) -> dict[str, int]:
        """Return all that can be reached, by relative path."""
        below: dict[int, list[tuple[str, int]]] = {}
        for (folder, name), inode in self.names.items():
            below.setdefault(folder, []).append((name, inode))
        found, waiting = {}, [("", ROOT)]
        while waiting:
            top, folder = waiting.pop()
            for name, inode in below.get(folder, ()):
                found[f"{top}{name}"] = inode
                if inode in self.folders:
                    waiting.append((f"{top}{name}/", inode))
        return found


def changed(content: bytes, step: Step) -> bytes:
    """Return what a file holds after a step on it."""
    if step.data is None:
        return content[: step.offset].ljust(step.offset, b"\0")
    head = content[: step.offset].ljust(step.offset, b"\0")
    return head + step.data + content[step.offset + len(step.data) :]


@dataclass(frozen=True)
class Recording:
    """A folder as it was, durable, and what was done to it, step by step; from step `last_from` on by the last program.

    The ones before it were killed.
    """

    before: Disk
    steps: tuple[Step, ...]
    last_from: int = 0

    def after(self, number: int | None = None) -> Disk:
        """Return what a process sees after the first `number` steps; after all without."""
        disk = Disk(
            dict(self.before.names), dict(self.before.contents), dict(self.before.links), set(self.before.folders)
        )
        for step in self.steps[:number]:
            disk.apply(step)
        return disk


def disk_of(folder: Path) -> tuple[Disk, dict[int, int]]:
    """Read a folder; return it and the model's inode of each inode number of the kernel."""
    disk, known = Disk(), {folder.stat().st_ino: ROOT}

    def look(top: Path, inode: int) -> None:
        for path in sorted(top.iterdir()):
            status = path.lstat()
            child = known.setdefault(status.st_ino, len(known))
            disk.names[inode, path.name] = child
            if path.is_symlink():
                disk.links[child] = str(path.readlink())
            elif path.is_dir():
                disk.folders.add(child)
                look(path, child)
            elif child not in disk.contents:
                disk.contents[child] = path.read_bytes()

    look(folder, ROOT)
    return disk, known


def recording_of(folder: Path, before: Disk, known: dict[int, int], *programs: Iterable[Call]) -> Recording:
    """Turn what programs did to a folder one after the other, and told in a file in memory, into steps.

    `before` and `known` are what `disk_of` gave before the calls. Raises UnknownCallError for what cannot be told as
    steps, and where they do not end in what the folder holds now.
    """
    translation = _Translation(str(folder.resolve()), Recording(before, ()).after(), dict(known))
    done = [[step for call in calls for step in translation.steps(call)] for calls in programs]
    # What an inode is, never changes: the kinds of all are known from the start.
    kinds = Disk(dict(before.names), dict(before.contents), translation.disk.links, translation.disk.folders)
    steps = tuple(step for steps in done for step in steps)
    recording = Recording(kinds, steps, len(steps) - len(done[-1]))
    seen, there = _shown(recording.after()), _shown(disk_of(folder)[0])
    if seen != there:
        differing = sorted(path for path in seen.keys() | there.keys() if seen.get(path) != there.get(path))
        raise UnknownCallError(f"{', '.join(differing)} in {folder}: not what the recorded calls lead to")
    return recording


def _shown(disk: Disk) -> dict[str, object]:
    return {
        path: "folder" if inode in disk.folders else disk.links.get(inode) or disk.contents.get(inode, b"")
        for path, inode in disk.paths().items()
    }


@dataclass
class _Translation:
    top: str
    disk: Disk
    known: dict[int, int]
    made: int = 0

    def __post_init__(self) -> None:
        self.made = max(self.known.values(), default=0)

    def steps(self, call: Call) -> list[Step]:
        """Return the steps of one call and do them; none for a call that failed or changed nothing."""
        if call.result < 0:
            return []
        found = [replace(step, thread=call.thread) for step in self._steps(call) if step.is_something]
        for step in found:
            self.disk.apply(step)
        return found

    def _steps(self, call: Call) -> list[Step]:  # noqa: PLR0911, PLR0912 - one return a call
        text = f"{call.name} {' '.join(path.removeprefix(self.top + '/') for path in call.paths)}"
        if call.paths and call.paths[0].startswith("/memfd:"):
            return [Step(text, told=call.data)] if call.kind == "write" else []
        match call.kind:
            case "open":
                return self._opened(call, text)
            case "write" | "ioctl":
                return [Step(text, inode=self._inode(call, 0), offset=call.offset, data=call.data)]
            case "truncate":
                return [Step(text, inode=self._inode(call, 0), offset=call.length)]
            case "fallocate" if call.flags in (0, _KEEP_SIZE):
                inode, end = self._inode(call, 0), call.offset + call.length
                grows = call.flags == 0 and len(self.disk.contents.get(inode, b"")) < end
                return [Step(text, inode=inode, offset=end)] if grows else []
            case "fsync":
                return [Step(text, synced=EVERYTHING if call.name == "syncfs" else self._inode(call, 0))]
            case "sync":
                return [Step(text, synced=EVERYTHING)]
            case "mkdir":
                inode = self._new(call.made)
                self.disk.folders.add(inode)
                return [Step(text, ((self._entry(call.paths[0]), inode),))]
            case "symlink":
                inode = self._new(call.made)
                self.disk.links[inode] = os.fsdecode(call.data)
                return [Step(text, ((self._entry(call.paths[0]), inode),))]
            case "link":
                return [Step(text, ((self._entry(call.paths[1]), self._inode(call, 0)),))]
            case "unlink":
                return [Step(text, ((self._entry(call.paths[0]), None),))]
            case "rename" if call.flags in (0, _RENAME_NOREPLACE, _RENAME_EXCHANGE):
                return self._renamed(call, text)
            case kind if kind in _NO_CONTENT.split():
                return []
        raise UnknownCallError(f"{text}: nobody has said what a crash makes of {call.name} (flags {call.flags})")

    def _opened(self, call: Call, text: str) -> list[Step]:
        if call.flags & os.O_TMPFILE == os.O_TMPFILE:
            self.disk.contents[self._new(call.made)] = b""
            return []
        if call.flags & os.O_CREAT and self.disk.find(self._relative(call.paths[0])) is None:
            inode = self._new(call.made)
            self.disk.contents[inode] = b""
            return [Step(text, ((self._entry(call.paths[0]), inode),))]
        inode = self.known[call.made]
        if call.flags & os.O_TRUNC and self.disk.contents.get(inode):
            return [Step(text, inode=inode)]
        return []

    def _renamed(self, call: Call, text: str) -> list[Step]:
        source, target = map(self._entry, call.paths)
        moved, there = self.disk.names[source], self.disk.names.get(target)
        if moved == there:  # two names of one file: rename(2) leaves both
            return []
        return [Step(text, ((target, moved), (source, there if call.flags == _RENAME_EXCHANGE else None)))]

    def _new(self, kernel_number: int) -> int:
        self.made += 1
        self.known[kernel_number] = self.made
        return self.made

    def _inode(self, call: Call, number: int) -> int:
        return self.known[call.inodes[number]]

    def _relative(self, path: str) -> str:
        if not path.startswith(f"{self.top}/"):
            raise UnknownCallError(f"{path} lies outside {self.top}: what moves over its edge is not followed")
        return path.removeprefix(f"{self.top}/")

    def _entry(self, path: str) -> Entry:
        folder, _, name = self._relative(path).rpartition("/")
        inode = self.disk.find(folder)
        if inode is None:
            raise UnknownCallError(f"{path}: its folder was made unseen")
        return inode, name
