"""Saves, loads and links the checkpoints of one run. It makes no choices: what to keep or resume is decided elsewhere.

Invariants, each with the test that holds it (tests/test_store.py unless said otherwise):

1. A file under a checkpoint's name is complete and was fsynced, and its folder too.
   test_killed_at_random_moments_training_ends_with_the_same_bits (tests/test_kill.py),
   test_a_failed_save_leaves_the_earlier_file_whole
2. Nothing is deleted before what replaces it is durable and verified (`training/saving/commit.py`).
   test_a_failed_save_leaves_the_earlier_file_whole,
   test_nothing_is_deleted_where_the_newest_checkpoint_is_not_as_it_was_written (tests/test_commit.py)
3. `best_checkpoint_*` is the best epoch by the figures of the task (of a detector the lowest validation EER; ties:
   lower loss, then earlier), the same bytes as that epoch's file.
   test_the_best_checkpoint_is_the_same_file_as_its_epoch
4. What stays is decided by one pure function over records (`training/runs/retention.py`), and only files of the
   run itself, under the name they were saved with, can go. test_the_flags_decide_which_checkpoints_stay
   (tests/test_step_checkpoints.py)
5. Loading is strict: every bit verified, `weights_only=True`, `strict=True`, all keys there.
   test_a_flipped_bit_is_never_loaded, test_a_pickle_that_runs_code_is_refused
6. What a checkpoint refers to is durable before it.
   test_the_frozen_weights_are_written_where_they_are_not_whole_already (tests/test_frozen_weights.py)
7. One process writes in a run folder, also after it was removed.
   test_a_second_process_is_refused (tests/test_run_lock.py),
   test_a_folder_that_another_process_has_made_again_and_holds_is_refused_until_it_is_gone (tests/test_run_lock.py)
"""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from training.checkpoints.appended import written_out
from training.checkpoints.examined import examine
from training.checkpoints.file_format import BadCheckpointFileError, NotUsableError
from training.checkpoints.frozen_reference import (
    FROZEN_KEY,
    FROZEN_KIND,
    WEIGHTS_KEY,
    FrozenFile,
    broken_frozen,
    find_frozen,
)
from training.checkpoints.frozen_weights import FrozenWeights, made_whole, with_frozen
from training.checkpoints.record import FORMAT, REQUIRED_KEYS, CheckpointRecord, Kind, record_from_dict
from training.checkpoints.rows import EpochMetrics
from training.checkpoints.sealed_file import BAD_ENTRY, broken_seal, read_record, write_sealed
from training.checkpoints.torch_archive import save_archive
from training.checkpoints.verified_file import NoLongerReadableError, VerifiedFile, verify
from training.checkpoints.verified_load import first_line, load_verified
from training.runs.directory import RunDirectory
from training.runs.lock import RunLock
from training.runs.names import CheckpointNames
from training.runs.survey import checkpoint_files
from training.saving.room import lack_of_room
from utils.atomic_files import atomic_write, disk_error_behind, link_or_copy
from utils.errors import UserError
from utils.streamed_file import StreamedFile

Check = Callable[[], None]
# What torch, zipfile, json and the disk raise between the first byte and the name.
_WRITING_FAILED = (OSError, zipfile.BadZipFile, MemoryError, LookupError, TypeError, *BAD_ENTRY)
_PLAIN_TYPES = frozenset((type(None), bool, int, float, str, torch.Tensor, torch.nn.Parameter))


@dataclass(frozen=True, eq=False)
class LoadedFile:
    """The checkpoint that this process goes on from: the file, whose every bit it verified, and what it held."""

    file: VerifiedFile
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run.

    `lock` is what this process holds of its folder while it saves there; `frozen` are weights that the checkpoints
    refer to, None where each of them is whole.
    """

    run: RunDirectory
    names: CheckpointNames
    lock: RunLock | None = None
    frozen: FrozenWeights | None = None

    def keep_frozen(self, verified: VerifiedFile | None = None) -> Path | None:
        """Write the frozen weights, unless they are there and intact; return their path once they are durable.

        Must come before the first checkpoint that refers to them. Returns None where nothing is frozen. `verified` is
        the file with frozen weights that this process has read already: it is not read again.
        """
        if self.frozen is None:
            return None
        reference = self.frozen.reference
        path = self.run.folder / reference.file
        if verified and verified.is_at(path) and _content_of(verified) == reference.sha256:
            return path
        if not path.exists() or broken_frozen(path, reference) or not find_frozen(path, reference).samefile(path):
            record = {"format": FORMAT, "kind": FROZEN_KIND, "sha256": reference.sha256, "bytes": reference.bytes}
            _write(path, {WEIGHTS_KEY: dict(self.frozen.tensors)}, record)
        return path

    def hold_folder(self, record: CheckpointRecord) -> str | None:
        """Make sure that what is saved next, the checkpoint of `record`, is saved in a folder that this process holds.

        Return what must be told if the folder had to be made again; raises CannotSaveError where another one has it.
        """
        try:
            return self.lock.ensure() if self.lock else None
        except OSError as error:
            raise _cannot_save(self._path(record), error.strerror or error) from error
        except UserError as error:
            raise _cannot_save(self._path(record), error) from error

    def save(self, payload: Mapping[str, Any], record: CheckpointRecord, check: Check = lambda: None) -> Path:
        """Write a whole checkpoint under the name its record asks for, and return the path once it is durable.

        `check` is that of `save_checkpoint`. Raises CannotSaveError where the disk refuses.
        """
        path = self._path(record)
        try:
            if self.frozen and not (self.run.folder / self.frozen.reference.file).is_file():
                self.keep_frozen()  # the folder was made again since the start
        except OSError as error:
            raise _cannot_save(path, error.strerror or error) from error
        save_checkpoint(path, payload, replace(record, name=path.name, format=FORMAT), check)
        return path

    def _path(self, record: CheckpointRecord) -> Path:
        return self.run.folder / self.names.file_name(record)

    def mark_best(
        self, source: Path, payload: Mapping[str, Any], record: CheckpointRecord, check: Check = lambda: None
    ) -> None:
        """Give a durable epoch checkpoint the best name too, and write its weights alone, and whole, for reuse."""
        self._commit(link_or_copy, source, self.run.best_checkpoint)
        if self.frozen and self.frozen.reference == record.frozen and FROZEN_KEY in payload:
            payload = with_frozen(payload, self.frozen.tensors)
        payload = made_whole(dict(payload), source)
        weights = {key: payload[key] for key in (*record.weights, "args", "config", "epoch", "metrics")}
        alone = replace(
            record,
            kind=Kind.WEIGHTS,
            frozen=None,
            parts=record.weights,
            name=self.run.best_weights.name,
            format=FORMAT,
        )
        save_checkpoint(self.run.best_weights, weights, alone, check)

    def mark_last(self, source: Path) -> None:
        """Give a durable checkpoint the last name too."""
        self._commit(link_or_copy, source, self.run.last_checkpoint)

    def bring_along(self, source: CheckpointRecord, opened: VerifiedFile | None = None) -> Path:
        """Give a checkpoint of another folder its name in this one, and return the path here.

        The frozen weights that it refers to come along. Raises UserError where the file is no longer the one `opened`.
        """
        if opened and not opened.is_at(source.path):
            raise UserError(f"{source.path} was changed by another process since this one read it: start again")
        if source.frozen:
            self._commit(link_or_copy, _frozen_of(source), self.run.folder / source.frozen.file)
        path = self._path(source)
        self._commit(link_or_copy, source.path, path)
        return path

    def restore_best(
        self, resumed: CheckpointRecord, folders: Iterable[Path], loaded: LoadedFile | None = None
    ) -> str | None:
        """Make the best files those of the best epoch that `resumed` knows of; return a sentence where that fails.

        Needed after a kill between a checkpoint and its best link, and where the run was resumed from an older file.
        `loaded` is what this process has read already: it is not read again.
        """
        wanted = resumed.best
        if wanted is None or (
            self._holds(self.run.best_checkpoint, wanted, loaded) and self._holds(self.run.best_weights, wanted)
        ):
            return None
        for folder in folders:
            for path in checkpoint_files(folder) if folder.is_dir() else ():
                found = examine(path)
                if not isinstance(found, CheckpointRecord) or found.last != wanted or found.kind is not Kind.EPOCH:
                    continue
                payload = _payload_of(path, loaded) if found.run_id == resumed.run_id_at(found.step) else None
                if payload is not None:
                    self.mark_best(path, payload, found)
                    return None
        return (
            f"the best epoch so far is {wanted.epoch}, and its checkpoint is not there any more: "
            f"{self.run.best_checkpoint.name} appears when an epoch is better"
        )

    @staticmethod
    def _holds(path: Path, wanted: EpochMetrics, loaded: LoadedFile | None = None) -> bool:
        """Whether a file is the undamaged one of the epoch with these figures."""
        if loaded and loaded.file.is_at(path) and isinstance(loaded.file.facts, CheckpointRecord):
            return loaded.file.facts.last == wanted
        try:
            stored = read_record(path) if path.exists() else None
            last = record_from_dict(stored, path, 0).last if stored else None
        except (BadCheckpointFileError, UserError):
            return False
        return last == wanted and broken_seal(path) is None

    @staticmethod
    def _commit(action: Any, source: Path, target: Path) -> None:
        try:
            action(source, target)
        except OSError as error:
            raise _cannot_save(target, error.strerror or error) from error


def save_checkpoint(
    path: Path, payload: Mapping[str, Any], record: CheckpointRecord, check: Check = lambda: None
) -> None:
    """Write one sealed checkpoint file atomically.

    `check` is called before each write; an OSError that it raises ends the save as one of the disk would. Raises
    CannotSaveError where the disk refuses, and where anything else goes wrong, leaving what was there; too little room
    is noticed before anything is written. Raises TypeError for a value that `torch.load(weights_only=True)` would
    refuse: what is saved must load.
    """
    _write(path, payload, record.as_dict(), check)


def _write(path: Path, payload: Mapping[str, Any], record: dict[str, Any], check: Check = lambda: None) -> None:
    payload = written_out(payload)
    _require_plain(payload, path.name)
    lack = lack_of_room(path.parent, payload)
    if lack:
        raise _cannot_save(path, lack)

    try:
        with atomic_write(path) as file, StreamedFile(file, check) as streamed:
            write_sealed(streamed, lambda writer: save_archive(dict(payload), writer), record)
    except _WRITING_FAILED as error:  # whatever it is, the name is not given, and the state can be saved again
        cause = disk_error_behind(error)
        reason = (cause.strerror or cause) if cause else f"{type(error).__name__}: {first_line(error)}"
        raise _cannot_save(path, reason) from error


def _require_plain(value: Any, name: str) -> None:
    if type(value) in (dict, OrderedDict):
        for key, part in value.items():
            _require_plain(key, name)
            if type(part) not in _PLAIN_TYPES:
                _require_plain(part, f"{name}[{key!r}]")
    elif type(value) in (list, tuple):
        for part in value:
            _require_plain(part, name)
    elif type(value) not in _PLAIN_TYPES:
        raise TypeError(f"{name} is a {type(value).__qualname__}: a checkpoint holds tensors and plain values only")


def _frozen_of(source: CheckpointRecord) -> Path:
    assert source.frozen is not None
    try:
        return find_frozen(source.path, source.frozen)
    except BadCheckpointFileError as error:
        raise UserError(f"{source.path} cannot be used: {error}") from error


def _content_of(frozen: VerifiedFile) -> str | None:
    return frozen.facts.sha256 if isinstance(frozen.facts, FrozenFile) else None


def _payload_of(path: Path, loaded: LoadedFile | None) -> Mapping[str, Any] | None:
    """Return what a checkpoint holds, without reading it where that was done; None where it is damaged."""
    if loaded and loaded.file.is_at(path):
        return loaded.payload
    try:
        return load_payload(verify(path))
    except NotUsableError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    except (BadCheckpointFileError, NoLongerReadableError):
        return None


class CannotSaveError(UserError):
    """The disk refused a checkpoint; what was there before is untouched."""


def _cannot_save(path: Path, reason: object) -> CannotSaveError:
    return CannotSaveError(f"{path} could not be saved: {reason}; earlier checkpoints are untouched")


def load_payload(opened: VerifiedFile) -> dict[str, Any]:
    """Return the payload of a full checkpoint, on the CPU; no code in it is run, and it is loaded once.

    Weights that lie in a file of their own, since they are frozen, are in it again. Raises UserError where the file is
    no checkpoint or lacks a key, and where its frozen weights are not those that it was saved with.
    """
    payload = made_whole(load_verified(opened), opened.path, opened.frozen)
    facts = opened.facts
    required = facts.required_keys if isinstance(facts, CheckpointRecord) else REQUIRED_KEYS
    if isinstance(facts, CheckpointRecord) and facts.format == 1:
        payload.setdefault("validations", [])
    missing = [key for key in required if key not in payload]
    if missing:
        raise UserError(f"{opened.path} is not a full checkpoint: it lacks {', '.join(missing)}")
    return payload
