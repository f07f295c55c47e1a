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
from training.checkpoints.commit import Committer
from training.checkpoints.names import CheckpointNames
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.retention import RetentionPolicy
from training.checkpoints.save_control import SaveControl
from training.checkpoints.sealed_file import write_sealed
from training.checkpoints.snapshot import take_snapshot
from training.checkpoints.store import CheckpointStore
from training.runs.directory import RunDirectory
from utils.atomic_files import make_folder

RUN = RunDirectory.of(OPTIONS)
_real_fsync, _real_open, _real_write = os.fsync, io.open, os.write


@dataclass(frozen=True)
class Moment:
    """One copy of the image: taken after `call`, when the files in `promised` had to be there, by name and epoch."""

    image: str
    call: str
    promised: dict[str, int]


@dataclass(frozen=True)
class Row:
    """One thing that is done to a run folder; `ends` are names that need not be there any more once it begins."""

    act: Callable[[CheckpointStore], object]
    promises: Mapping[str, int] = field(default_factory=dict)
    ends: tuple[str, ...] = ()


def _snapshot(epoch: int) -> tuple[dict[str, Any], CheckpointRecord]:
    """Return the state after so many epochs; each is the best so far."""
    state = small_state()
    seed_everything(1)
    for _ in range(epoch):
        train(state, 10)
        complete_epoch(state, val_eer=10.0 - state.epoch)
    return take_snapshot(state, FACTS, Kind.EPOCH)


def _save(epoch: int) -> Callable[[CheckpointStore], object]:
    return lambda store: store.save(*_snapshot(epoch))


def _mark_best(epoch: int) -> Callable[[CheckpointStore], object]:
    return lambda store: store.mark_best(RUN.epoch_checkpoint(epoch), *_snapshot(epoch))


def _write_without_sync(epoch: int) -> Callable[[CheckpointStore], object]:
    def act(store: CheckpointStore) -> None:
        payload, record = _snapshot(epoch)
        path = RUN.epoch_checkpoint(epoch)
        temporary = path.with_suffix(".tmp")
        with temporary.open("w+b") as file:
            write_sealed(file, lambda writer: torch.save(payload, writer), record.as_dict())
        temporary.rename(path)

    return act


def _commit(epoch: int) -> Callable[[CheckpointStore], object]:
    """Do all that a training run does at the end of an epoch: save, best, last, prune, compress."""

    def act(store: CheckpointStore) -> None:
        policy = RetentionPolicy(keep_last_n=2)
        outcome = Committer(store, policy, compress_after=1).commit(*_snapshot(epoch), SaveControl())
        assert (outcome.refused, outcome.warnings) == ("", ())

    return act


def _is_there(epoch: int) -> dict[str, int]:
    return {RUN.epoch_checkpoint(epoch).name: epoch}


def _is_best(epoch: int) -> dict[str, int]:
    return {RUN.best_checkpoint.name: epoch, RUN.best_weights.name: epoch}


def _is_last(epoch: int) -> dict[str, int]:
    return {RUN.last_checkpoint.name: epoch}


PROTOCOLS: Mapping[str, tuple[Row, ...]] = {
    "store": (
        Row(lambda store: make_folder(store.run.folder)),
        Row(_save(1), _is_there(1)),
        Row(_mark_best(1), _is_best(1)),
        Row(_save(2), _is_there(2)),
        Row(_mark_best(2), _is_best(2)),
    ),
    "commit": (
        Row(lambda store: make_folder(store.run.folder)),
        Row(_commit(1), _is_there(1) | _is_best(1) | _is_last(1)),
        Row(_commit(2), _is_there(2) | _is_best(2) | _is_last(2)),
        Row(_commit(3), _is_there(3) | _is_best(3) | _is_last(3), ends=tuple(_is_there(1))),
    ),
    "naive": (
        Row(lambda store: make_folder(store.run.folder)),
        Row(_save(1), _is_there(1)),
        Row(_write_without_sync(2), _is_there(2)),
        Row(lambda store: RUN.epoch_checkpoint(1).unlink(), ends=tuple(_is_there(1))),
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
    _known: dict[bytes, str] = field(default_factory=dict)

    def saw(self, call: str) -> None:
        """Copy what a power cut would leave now."""
        if self.neighbour:
            self._commit_as_a_neighbour()
        content = self.image.read_bytes()
        name = self._known.setdefault(hashlib.blake2b(content).digest(), f"{len(self._known):04}.img")
        if not (self.copies / name).exists():
            (self.copies / name).write_bytes(content)
        with (self.copies / "moments.jsonl").open("a") as file:
            file.write(json.dumps(asdict(Moment(name, call, self.promised))) + "\n")

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
    store = CheckpointStore(RUN, CheckpointNames.of(OPTIONS))
    watch.install()
    for row in PROTOCOLS[asked.protocol]:
        watch.promised = {name: epoch for name, epoch in watch.promised.items() if name not in row.ends}
        watch.saw("begins")
        row.act(store)
        watch.promised |= row.promises
        watch.saw("has returned")


if __name__ == "__main__":
    main()
