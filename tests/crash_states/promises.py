"""What a program has promised, as it becomes more and less, and what of it is not so after a crash."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash_states.disk import ROOT, Disk, Entry, Recording
from tests.crash_states.model import State
from tests.crash_states.recorded import Told
from training.checkpoints.checking import check_file
from training.checkpoints.examined import WeightsFile, examine
from training.checkpoints.record import CheckpointRecord
from training.settings.name_template import CHECKPOINT_SUFFIXES
from utils.atomic_files import TEMPORARY_PREFIX

_APPENDED = re.compile(r"events\.out\.tfevents\.|\.partial$")


@dataclass(frozen=True, order=True)
class Label:
    """What a file is as a checkpoint, however it is written; `position` says how far training is."""

    position: tuple[int, int]
    kind: str
    run_id: str
    name: str


def is_read(path: str) -> bool:
    """Whether the program reads what a file of this path holds, or only that it is there."""
    name = path.rpartition("/")[2]
    return not (name.startswith(TEMPORARY_PREFIX) or name.endswith(".lock") or name.startswith("events.out.tfevents."))


def is_below(path: str, top: str) -> bool:
    """Whether a path is `top` or lies in it."""
    return path == top or path.startswith(f"{top}/")


def is_checkpoint(path: str) -> bool:
    """Whether a path is one under which a checkpoint is looked for."""
    return path.endswith(CHECKPOINT_SUFFIXES) and is_read(path)


@dataclass
class Labels:
    """What each content is as a checkpoint, by the program's own whole check; None for what it refuses.

    A label says the same of a file and of the same one compressed.
    """

    scratch: Path
    known: dict[bytes, Label | None] = field(default_factory=dict)

    def of(self, content: bytes) -> Label | None:
        """Return the label of a content."""
        if content not in self.known:
            self.scratch.parent.mkdir(parents=True, exist_ok=True)
            self.scratch.write_bytes(content)
            self.known[content] = self._examined() if content[:2] == b"PK" else None
        return self.known[content]

    def _examined(self) -> Label | None:
        if not check_file(self.scratch).verdict.is_good:
            return None
        found = examine(self.scratch)
        record = found.record if isinstance(found, WeightsFile) else found
        if not isinstance(record, CheckpointRecord):
            return Label((0, 0), type(found).__name__, "", "")
        return Label(record.position, record.kind.value, record.run_id, record.name)


@dataclass(frozen=True)
class Tidings:
    """What one thing told means: `entries` lead to these inodes now, by path; `label` is that of a checkpoint.

    `moving` are inodes, and the two paths of which each has one at least.
    """

    what: str
    path: str
    entries: tuple[tuple[Entry, str, int | None], ...]
    label: Label | None = None
    moving: tuple[tuple[int, str, str], ...] = ()


def tidings_of(recording: Recording, labels: Labels) -> list[Tidings]:
    """Return what is durable from the beginning, as so many tidings, and then what was told."""
    disk = recording.after(0)
    found = [
        _tidings(disk, Told("checkpoint" if is_checkpoint(path) else "durable", path), labels)
        for path in sorted(disk.paths())
    ]
    for step in recording.steps:
        disk.apply(step)
        if step.told:
            found.append(_tidings(disk, Told.read(step.told), labels))
    return found


def _tidings(disk: Disk, told: Told, labels: Labels) -> Tidings:
    parts, folder = told.path.split("/"), ROOT
    entries: list[tuple[Entry, str, int | None]] = []
    inode: int | None = None
    for number, part in enumerate(parts, 1):
        inode = disk.names.get((folder, part))
        entries.append(((folder, part), "/".join(parts[:number]), inode))
        if inode is None:
            break
        folder = inode
    content = disk.contents.get(inode, b"") if inode is not None else b""
    label = labels.of(content) if told.what == "checkpoint" else None
    return Tidings(told.what, told.path, tuple(entries), label, tuple(_moving(disk, told)))


def _moving(disk: Disk, told: Told) -> Iterator[tuple[int, str, str]]:
    for path, inode in disk.paths().items() if told.to else ():
        if inode not in disk.folders and is_below(path, told.path):
            yield inode, path, told.to + path.removeprefix(told.path)


@dataclass
class _Checkpoint:
    """One that was promised under `entry`: `labels` are it and what replaced it there; `moved`, it is elsewhere."""

    entry: Entry
    path: str
    labels: set[Label]
    moved: bool = False


class Promises:
    """What must be there after a crash at some moment of a recording.

    `names` are entries and the inodes that each may lead to: the promised one, and what it got since, beside a path for
    people. `told` counts what the program has told so far. `tidings` are those of the recording, or of the one that it
    is a mutant of: what a program promises does not depend on whether it is so. `moving` are paths that
    were durable, what each leads to, and where it will be.
    """

    def __init__(self, recording: Recording, labels: Labels, tidings: Sequence[Tidings]) -> None:
        self.recording, self.labels = recording, labels
        self.number = self.told = 0
        self.names: dict[Entry, tuple[str, list[int | None]]] = {}
        self.checkpoints: list[_Checkpoint] = []
        self.moving: dict[str, tuple[int, str]] = {}
        self._now = recording.after(0)
        told_before = len(tidings) - sum(bool(step.told) for step in recording.steps)
        self._tidings = iter(tidings)
        for one in itertools.islice(self._tidings, told_before):
            self._promise(one)

    def advance_to(self, number: int) -> None:
        """Take in what was done and told until a moment."""
        while self.number < number:
            step = self.recording.steps[self.number]
            self.number += 1
            self._now.apply(step)
            for entry, inode in step.entries:
                self._changed(entry, inode)
            if step.told:
                self.told += 1
                self._promise(next(self._tidings))

    def _promise(self, told: Tidings) -> None:
        if told.what == "released":
            self._release(lambda one: one.path == told.path)
            return
        if told.what == "moving":
            durable = dict(self.names.values())
            self.moving |= {path: (inode, to) for inode, path, to in told.moving if inode in durable.get(path, ())}
            return
        if told.what == "gone":
            self.moving = {path: move for path, move in self.moving.items() if not is_below(path, told.path)}
        *above, (entry, path, inode) = told.entries
        for folder, its_path, its_inode in above:
            self.names.setdefault(folder, (its_path, [its_inode]))
        if inode is None and told.what != "gone":  # another thread has moved it on
            return
        self.names[entry] = path, [inode]
        if told.label:
            self._release(lambda one: one.entry == entry)
            self.checkpoints.append(_Checkpoint(entry, path, {told.label}))

    def _release(self, which: Callable[[_Checkpoint], bool]) -> None:
        self.checkpoints = [one for one in self.checkpoints if one.moved or not which(one)]

    def _changed(self, entry: Entry, inode: int | None) -> None:
        if entry in self.names:
            self.names[entry][1].append(inode)
        for one in self.checkpoints:
            if one.entry == entry and inode is None:
                one.moved = True
            elif one.entry == entry and not one.moved and inode is not None:
                label = self.labels.of(self._now.contents.get(inode, b""))
                one.labels.update([label] if label else [])

    def furthest_in(self, folder: Path) -> tuple[int, int] | None:
        """Return the position of the furthest checkpoint promised in a folder and not moved away; None for none."""
        here = (one.labels for one in self.checkpoints if not one.moved and Path(one.path).parent == folder)
        return max((min(label.position for label in labels) for labels in here), default=None)

    def broken_by(self, state: State) -> Iterator[str]:
        """Yield what was promised and is not so, and what is under its name and not whole."""
        for entry, (path, allowed) in self.names.items():
            inode = state.disk.names.get(entry)
            if inode not in allowed:
                yield f"{path} is not what it was promised to be: it is {'gone' if inode is None else 'another file'}"
        found = state.disk.paths()
        for path, inode in found.items():
            if inode in state.torn and is_read(path) and not _APPENDED.search(path):
                yield f"{path} is torn"
        there = {
            self.labels.of(state.disk.contents.get(inode, b"")) for path, inode in found.items() if is_checkpoint(path)
        }
        for path, (inode, to) in self.moving.items():
            if inode not in (found.get(path), found.get(to)):
                yield f"{path}, which moves to {to}, is under neither name"
        for one in self.checkpoints:
            if not one.labels & there:
                yield f"the checkpoint {one.path} is under no name any more"
