"""A program that saves checkpoints on an ext4 image and copies the image after each system call that changes something.

    python -m tests.watched_saves PROTOCOL MOUNTED_FOLDER IMAGE COPIES [--without file_fsync,folder_fsync] [--neighbour]

COPIES/moments.jsonl says after which call each copy was made, and what had been promised by then. With --neighbour,
another program on the same file system fsyncs a file of its own after each call, which makes ext4 commit all the names,
lengths and deletions so far, ours too, but not our data. --without takes fsyncs away from the real store, and the
protocol `naive` is what other trainers do: both show that the test can fail.
"""

from __future__ import annotations

import argparse
import builtins
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.small_state import FACTS, OPTIONS, complete_epoch, seed_everything, small_state, train
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.sealed_file import write_sealed
from training.runs.directory import RunDirectory
from training.runs.names import CheckpointNames
from training.runs.retention import RetentionPolicy
from training.saving.commit import Committer
from training.saving.save_control import SaveControl
from training.saving.store import CheckpointStore
from training.state.snapshot import take_snapshot
from utils import streamed_file
from utils.atomic_files import make_folder

RUN = RunDirectory.of(OPTIONS)
_real_fsync, _real_open, _real_write = os.fsync, io.open, os.write


@dataclass(frozen=True)
class Moment:
    """One copy of the image: taken after `call`, when the files in `promised` had to be there, by name and epoch.

    A name in `replaced_by` may be gone where the one that it leads to is there.
    """

    image: str
    call: str
    promised: dict[str, int]
    replaced_by: dict[str, str]


@dataclass(frozen=True)
class Row:
    """One thing that is done to a run folder, what it promises from its return on, and what it may delete for it."""

    act: Callable[[Committer], object]
    promises: Mapping[str, int] = field(default_factory=dict)
    replaces: Mapping[str, str] = field(default_factory=dict)


def _snapshot(epochs: int, steps: int = 0) -> tuple[dict[str, Any], CheckpointRecord]:
    """Return the state after some epochs, of which the first is the best, and steps of the next."""
    state = small_state()
    seed_everything(1)
    for _ in range(epochs):
        train(state, 10)
        complete_epoch(state, val_eer=5.0 + state.epoch)
    train(state, steps)
    return take_snapshot(state, FACTS, Kind.STEP if steps else Kind.EPOCH)


def _make_folder(committer: Committer) -> None:
    make_folder(committer.store.run.folder)


def _commit(epochs: int, steps: int = 0) -> Callable[[Committer], object]:
    return lambda committer: committer.commit(*_snapshot(epochs, steps), SaveControl())


def _save_without_sync(committer: Committer) -> None:
    """Do what trainers do that know nothing of power cuts: write, rename, delete the old one."""
    payload, record = _snapshot(2)
    path = committer.store.run.folder / name(2)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w+b") as file:
        write_sealed(file, lambda writer: torch.save(payload, writer), record.as_dict())
    temporary.rename(path)
    path.with_name(name(1)).unlink()


def name(epoch: int) -> str:
    """Return the name of an epoch's checkpoint."""
    return f"checkpoint_epoch_{epoch}.pth"


LAST, BEST = RUN.last_checkpoint.name, {RUN.best_checkpoint.name: 1, RUN.best_weights.name: 1}
POLICY = RetentionPolicy(keep_last_n=2)
PROTOCOLS: Mapping[str, tuple[Row, ...]] = {
    "store": (
        Row(_make_folder),
        Row(_commit(0, steps=5), {"checkpoint_step_5.pth": 0, LAST: 0}),
        Row(_commit(1), {name(1): 1, LAST: 1, **BEST}),
        Row(_commit(2), {name(2): 2, LAST: 2}),
        Row(_commit(3), {name(3): 3, LAST: 3}),  # deflates epoch 2, which has lost its second name
        Row(_commit(4), {name(4): 4, LAST: 4}, replaces={name(2): name(4)}),  # and deletes it
    ),
    "naive": (
        Row(_make_folder),
        Row(lambda committer: committer.store.save(*_snapshot(1)), {name(1): 1}),
        Row(_save_without_sync, {name(2): 2}, replaces={name(1): name(2)}),
    ),
}


@dataclass
class Watch:
    """Wraps what changes a file system, and copies the image after each call; equal copies are one file."""

    image: Path
    copies: Path
    without: frozenset[str]
    neighbour: bool
    promised: dict[str, int] = field(default_factory=dict)
    replaced_by: dict[str, str] = field(default_factory=dict)
    _known: dict[bytes, str] = field(default_factory=dict)

    def saw(self, call: str) -> None:
        """Copy what a power cut would leave now."""
        if self.neighbour:
            self._commit_as_a_neighbour()
        content = self.image.read_bytes()
        image = self._known.setdefault(hashlib.blake2b(content).digest(), f"{len(self._known):04}.img")
        if not (self.copies / image).exists():
            (self.copies / image).write_bytes(content)
        with (self.copies / "moments.jsonl").open("a") as file:
            file.write(json.dumps(asdict(Moment(image, call, self.promised, self.replaced_by))) + "\n")

    @staticmethod
    def _commit_as_a_neighbour() -> None:
        descriptor = os.open("neighbour", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        _real_write(descriptor, b"a line in a log\n")
        _real_fsync(descriptor)
        os.close(descriptor)

    def install(self) -> None:
        """Put the wrappers in place."""
        for name in (
            "write",
            "pwrite",
            "rename",
            "replace",
            "link",
            "unlink",
            "remove",
            "mkdir",
            "truncate",
            "ftruncate",
        ):
            setattr(os, name, self._watched(name, getattr(os, name)))
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._fsync)
        io.open = builtins.open = self._open

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            result = call(*arguments, **named)
            self.saw(f"{name} {' '.join(Path(a).name if isinstance(a, str | Path) else '' for a in arguments)}")
            return result

        return watched

    def _fsync(self, descriptor: Any) -> None:
        what = "folder_fsync" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file_fsync"
        if what not in self.without:
            _real_fsync(descriptor)
        self.saw(what)

    def _open(self, file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if not set(mode) & set("xwa+") or Path.cwd() not in Path(file).absolute().parents:
            return _real_open(file, mode, *arguments, **named)
        assert "b" in mode and "+" in mode, f"{file} is opened in a way that this watch does not know: {mode}"
        raw = _WatchedFile(self, file, mode.replace("b", ""))
        self.saw(f"open {Path(file).name}")
        return io.BufferedRandom(raw)


class _WatchedFile(io.FileIO):
    """A file each of whose writes is seen by a watch."""

    def __init__(self, watch: Watch, path: Any, mode: str) -> None:
        super().__init__(path, mode)
        self._watch = watch

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        self._watch.saw("write")
        return written


def main() -> None:
    """Go through the rows of a protocol under watch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=PROTOCOLS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("copies", type=Path)
    parser.add_argument("--without", default="")
    parser.add_argument("--neighbour", action="store_true")
    asked = parser.parse_args()
    os.chdir(asked.folder)
    watch = Watch(asked.image, asked.copies, frozenset(asked.without.split(",")), asked.neighbour)
    committer = Committer(CheckpointStore(RUN, CheckpointNames.of(OPTIONS)), POLICY, compress_after=1)
    watch.install()
    streamed_file.BUFFER_BYTES = 1 << 12  # type: ignore[attr-defined]  # small files are written as large ones are
    for row in PROTOCOLS[asked.protocol]:
        watch.replaced_by |= row.replaces
        row.act(committer)
        watch.promised |= row.promises
        watch.saw("has returned")


if __name__ == "__main__":
    main()
