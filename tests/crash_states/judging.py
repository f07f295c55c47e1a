"""Judges what a crash left: by the promises made until then, and by what the program's own readers make of it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from tests.crash_states.disk import ROOT, Disk, Entry, Recording, Step
from tests.crash_states.model import State
from tests.crash_states.recorded import Told
from training.checkpoints.checking import check_file
from training.checkpoints.record import CheckpointRecord, WeightsFile, examine
from training.planning.facts import collect_facts
from training.planning.plan import decide
from training.runs.config_file import run_config
from training.settings.name_template import CHECKPOINT_SUFFIXES
from training.settings.requests import AutoResume
from utils.atomic_files import TEMPORARY_PREFIX
from utils.errors import UserError

_APPENDED = re.compile(r"events\.out\.tfevents\.|\.partial$")
_EPOCHS_TOLD = re.compile(rb'<meta name="epochs" content="(\d+)">')
_TIMES = re.compile(rb"\d+\.\d+|[0-9a-f]{16}")
_RANDOM = re.compile(r"-\d+(-[0-9a-f]{8})?$|(?<=events\.out\.tfevents\.).*$")


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
    return not (name.startswith(TEMPORARY_PREFIX) or name == ".lock" or name.startswith("events.out.tfevents."))


def is_checkpoint(path: str) -> bool:
    """Whether a path is one under which a checkpoint is looked for."""
    return path.endswith(CHECKPOINT_SUFFIXES) and is_read(path)


@dataclass
class Place:
    """A folder in memory that shows one state after the other; what they have in common stays.

    Files are links into a pool, one for each inode and content, so that a state costs only its differences.
    """

    top: Path
    pool: Path
    _shown: dict[str, object] = field(default_factory=dict)
    _pooled: dict[tuple[int, bytes], Path] = field(default_factory=dict)

    def show(self, disk: Disk) -> None:
        """Make the folder hold what the disk does."""
        paths = disk.paths()
        wanted: dict[str, object] = {}
        for path, inode in paths.items():
            if inode in disk.folders:
                wanted[path] = "folder"
            elif inode in disk.links:
                wanted[path] = disk.links[inode]
            else:
                wanted[path] = self._file(inode, disk.contents.get(inode, b""))
        for path in sorted(self._shown.keys(), reverse=True):
            if wanted.get(path) != self._shown[path]:
                (self.top / path).rmdir() if self._shown[path] == "folder" else (self.top / path).unlink()
                del self._shown[path]
        for path in sorted(wanted.keys() - self._shown.keys()):
            thing = self._shown[path] = wanted[path]
            if thing == "folder":
                (self.top / path).mkdir()
            elif isinstance(thing, Path):
                (self.top / path).hardlink_to(thing)
            else:
                (self.top / path).symlink_to(str(thing))

    def _file(self, inode: int, content: bytes) -> Path:
        pooled = self._pooled.get((inode, content))
        if pooled is None:
            pooled = self._pooled[inode, content] = self.pool / str(len(self._pooled))
            pooled.write_bytes(content)
        return pooled


def copy_out(disk: Disk, folder: Path) -> None:
    """Write a state into an empty folder, for a program that changes it: two names of one inode are one file."""
    first: dict[int, Path] = {}
    for path, inode in sorted(disk.paths().items()):
        here = folder / path
        if inode in disk.folders:
            here.mkdir()
        elif inode in disk.links:
            here.symlink_to(disk.links[inode])
        elif inode in first:
            here.hardlink_to(first[inode])
        else:
            first[inode] = here
            here.write_bytes(disk.contents.get(inode, b""))


@contextlib.contextmanager
def place_in_memory(scratch: Path) -> Iterator[Place]:
    """Yield a place below `scratch`, which is the working folder meanwhile, as it was when the program ran in it."""
    for name in ("top", "pool"):
        (scratch / name).mkdir(parents=True)
    # The text of config.yaml follows from what was asked for, and costs more than all that depends on the state.
    once = mock.patch("training.planning.plan.run_config", functools.cache(run_config))
    try:
        with contextlib.chdir(scratch / "top"), once:
            yield Place(scratch / "top", scratch / "pool")
    finally:
        shutil.rmtree(scratch)


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
    """What one thing told means: `entries` lead to these inodes now, by path; `label` is that of a checkpoint."""

    what: str
    path: str
    entries: tuple[tuple[Entry, str, int | None], ...]
    label: Label | None = None


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
    return Tidings(told.what, told.path, tuple(entries), labels.of(content) if told.what == "checkpoint" else None)


@dataclass
class _Checkpoint:
    """One that was promised under `entry`: `labels` are it and what replaced it there; `moved` away, it is elsewhere."""

    entry: Entry
    path: str
    labels: set[Label]
    moved: bool = False


class Promises:
    """What must be there after a crash at some moment of a recording.

    `names` are entries and the inodes that each may lead to: the promised one, and what it got since, beside a path for
    people. `told` counts what the program has told so far. `tidings` are those of the recording, or of the one that it
    is a mutant of: what a program promises does not depend on whether it is so.
    """

    def __init__(self, recording: Recording, labels: Labels, tidings: Sequence[Tidings]) -> None:
        self.recording, self.labels = recording, labels
        self.number = self.told = 0
        self.names: dict[Entry, tuple[str, list[int | None]]] = {}
        self.checkpoints: list[_Checkpoint] = []
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
        there = {self.labels.of(state.disk.contents.get(inode, b"")) for path, inode in found.items() if is_checkpoint(path)}
        for one in self.checkpoints:
            if not one.labels & there:
                yield f"the checkpoint {one.path} is under no name any more"


def seen_by_the_program(command: AutoResume, promises: Promises, own: Path) -> Iterator[str]:
    """Yield what is wrong with what the program would do next; `own` is the folder of the run that it is asked for."""
    try:
        facts = collect_facts(command)
        plan = decide(command, facts)
    except UserError as error:
        yield f"--auto_resume is refused: {error}"
        return
    yield from (f"{file.path} cannot be used: {file.reason}" for file in facts.run.unusable)
    furthest = promises.furthest_in(own)
    if furthest is None or plan.run.move_journal.exists():
        return
    if plan.checkpoint is None:
        yield f"--auto_resume starts anew ({plan.reason}), and {furthest} was promised"
    elif plan.checkpoint.position < furthest:
        yield f"--auto_resume goes on from {plan.checkpoint.position}, and {furthest} was promised"


def looks(state: State, labels: Labels) -> int:
    """Return a number that is the same for two states between which the program sees no difference but times."""
    seen, ids = set(), dict[str, int]()
    for path, inode in sorted(state.disk.paths().items()):
        content = state.disk.contents.get(inode, b"")
        what: object = state.disk.links.get(inode, inode in state.disk.folders)
        if is_checkpoint(path):
            label = labels.of(content)
            run = ids.setdefault(label.run_id, len(ids)) if label else 0  # an id is drawn: which have the same, is seen
            what = (label.position, label.kind, label.name, run, content[8:10]) if label else zlib.crc32(content)
        elif path.endswith(".csv"):
            what = content.count(b"\n")
        elif path.endswith(".html"):
            what = _EPOCHS_TOLD.findall(content[:1000])
        elif is_read(path):
            what = zlib.crc32(_TIMES.sub(b"", content))
        seen.add((_RANDOM.sub("", path), str(what)))
    return hash(frozenset(seen))
