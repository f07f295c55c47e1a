"""Saves, loads and links the checkpoints of one run. It makes no choices: what to keep or resume is decided elsewhere.

Invariants, each with the test that holds it (tests/test_store.py unless said otherwise):

1. A file under a checkpoint's name is complete and was fsynced, and its folder too.
   test_killed_at_random_moments_training_ends_with_the_same_bits (tests/test_kill.py),
   test_a_failed_save_leaves_the_earlier_file_whole
2. Nothing is deleted before what replaces it is durable and verified (`training/checkpoints/commit.py`).
   test_a_failed_save_leaves_the_earlier_file_whole,
   test_nothing_is_deleted_where_the_newest_checkpoint_is_not_as_it_was_written (tests/test_commit.py)
3. `best_checkpoint_eer` is the epoch with the lowest validation EER (ties: lower loss, then earlier), the same bytes as
   that epoch's file. test_the_best_checkpoint_is_the_same_file_as_its_epoch
4. What stays is decided by one pure function over records (`training/checkpoints/retention.py`), and only files of the
   run itself, under the name they were saved with, can go. test_the_flags_decide_which_checkpoints_stay
   (tests/test_step_checkpoints.py)
5. Loading is strict: every bit verified, `weights_only=True`, `strict=True`, all keys there.
   test_a_flipped_bit_is_never_loaded, test_a_pickle_that_runs_code_is_refused
6. One process writes in a run folder. test_a_second_process_is_refused (tests/test_run_lock.py)
"""

from __future__ import annotations

import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import torch

from training.checkpoints.names import CheckpointNames
from training.checkpoints.record import (
    REQUIRED_KEYS,
    CheckpointRecord,
    EpochMetrics,
    Kind,
    examine,
    record_from_dict,
)
from training.checkpoints.room import lack_of_room
from training.checkpoints.sealed_file import BadCheckpointFileError, broken_seal, read_record, write_sealed
from training.runs.directory import RunDirectory
from training.runs.lock import RunLock
from training.runs.survey import checkpoint_files
from utils.atomic_files import atomic_write, disk_error_behind, link_or_copy
from utils.errors import UserError

Check = Callable[[], None]
_PLAIN_TYPES = (type(None), bool, int, float, str, torch.Tensor, torch.nn.Parameter)
# A damaged pickle, or one made to be, can ask for anything; files of other programs may have no checksum.
_BAD_PICKLE = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    ImportError,
    struct.error,
)
_FORBIDDEN_GLOBAL = re.compile(r"GLOBAL (\S+)")
_WEIGHTS_KEYS = ("model_state_dict", "model", "model_state", "state_dict")


@dataclass(frozen=True)
class Weights:
    """The weights of a detector; `payload` is the rest of what the file holds, empty for a bare state dict."""

    path: Path
    state_dict: Mapping[str, torch.Tensor]
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run; `lock` is what this process holds of its folder while it saves there."""

    run: RunDirectory
    names: CheckpointNames
    lock: RunLock | None = None

    def hold_folder(self) -> str | None:
        """Make sure that what is saved next is saved in a folder that this process holds.

        Return what must be told if the folder had to be made again; raises CannotSaveError where another one has it.
        """
        try:
            return self.lock.ensure() if self.lock else None
        except OSError as error:
            raise _cannot_save(self.run.folder, error.strerror or error) from error
        except UserError as error:
            raise _cannot_save(self.run.folder, error) from error

    def save(self, payload: Mapping[str, Any], record: CheckpointRecord, check: Check = lambda: None) -> Path:
        """Write a whole checkpoint under the name its record asks for, and return the path once it is durable.

        `check` is that of `save_checkpoint`. Raises CannotSaveError where the disk refuses.
        """
        path = self._path(record)
        save_checkpoint(path, payload, replace(record, name=path.name), check)
        return path

    def _path(self, record: CheckpointRecord) -> Path:
        return self.run.folder / self.names.file_name(record)

    def mark_best(
        self, source: Path, payload: Mapping[str, Any], record: CheckpointRecord, check: Check = lambda: None
    ) -> None:
        """Give a durable epoch checkpoint the best name too, and write its weights alone for reuse."""
        self._commit(link_or_copy, source, self.run.best_checkpoint)
        weights = {
            key: payload[key] for key in ("model_state_dict", "front_end_config", "args", "config", "epoch", "metrics")
        }
        alone = replace(record, kind=Kind.WEIGHTS, name=self.run.best_weights.name)
        save_checkpoint(self.run.best_weights, weights, alone, check)

    def mark_last(self, source: Path) -> None:
        """Give a durable checkpoint the last name too."""
        self._commit(link_or_copy, source, self.run.last_checkpoint)

    def bring_along(self, source: CheckpointRecord) -> Path:
        """Give a checkpoint of another folder its name in this one, and return the path here."""
        path = self._path(source)
        self._commit(link_or_copy, source.path, path)
        return path

    def restore_best(self, resumed: CheckpointRecord, folders: Iterable[Path]) -> str | None:
        """Make the best files those of the best epoch that `resumed` knows of; return a sentence where that fails.

        Needed after a kill between a checkpoint and its best link, and where the run was resumed from an older file.
        """
        wanted = resumed.best
        if wanted is None or (
            self._holds(self.run.best_checkpoint, wanted) and self._holds(self.run.best_weights, wanted)
        ):
            return None
        for folder in folders:
            for path in checkpoint_files(folder) if folder.is_dir() else ():
                found = examine(path)
                if not isinstance(found, CheckpointRecord) or found.last != wanted or found.kind is not Kind.EPOCH:
                    continue
                if found.run_id == resumed.run_id_at(found.step) and broken_seal(path) is None:
                    self.mark_best(path, load_payload(path), found)
                    return None
        return (
            f"the best epoch so far is {wanted.epoch}, and its checkpoint is not there any more: "
            f"{self.run.best_checkpoint.name} appears when an epoch is better"
        )

    @staticmethod
    def _holds(path: Path, wanted: EpochMetrics) -> bool:
        """Whether a file is the undamaged one of the epoch with these figures."""
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
    CannotSaveError where the disk refuses, leaving what was there; too little room is noticed before anything is
    written. Raises TypeError for a value that `torch.load(weights_only=True)` would refuse: what is saved must load.
    """
    _require_plain(payload, path.name)
    lack = lack_of_room(path.parent, payload)
    if lack:
        raise _cannot_save(path, lack)

    def write(writer: Any) -> None:
        torch.save(dict(payload), cast(IO[bytes], _CheckingWriter(writer, check)))  # it needs these two methods only

    try:
        with atomic_write(path) as file:
            write_sealed(file, write, record.as_dict())
    except (OSError, RuntimeError) as error:
        cause = disk_error_behind(error)
        if cause is None:
            raise
        raise _cannot_save(path, cause.strerror or cause) from error


class _CheckingWriter:
    """Passes writes on, and calls `check` before each."""

    def __init__(self, file: Any, check: Callable[[], None]) -> None:
        self._file = file
        self._check = check

    def write(self, data: Any) -> int:
        self._check()
        return int(self._file.write(data))

    def flush(self) -> None:
        self._file.flush()


def _require_plain(value: Any, name: str) -> None:
    if type(value) in (dict, OrderedDict):
        for key, part in value.items():
            _require_plain(key, name)
            _require_plain(part, f"{name}[{key!r}]")
    elif type(value) in (list, tuple):
        for part in value:
            _require_plain(part, name)
    elif type(value) not in _PLAIN_TYPES:
        raise TypeError(f"{name} is a {type(value).__qualname__}: a checkpoint holds tensors and plain values only")


class CannotSaveError(UserError):
    """The disk refused a checkpoint; what was there before is untouched."""


def _cannot_save(path: Path, reason: object) -> CannotSaveError:
    return CannotSaveError(f"{path} could not be saved: {reason}; earlier checkpoints are untouched")


def load_payload(path: Path) -> dict[str, Any]:
    """Return the payload of a full checkpoint, on the CPU; every bit is verified first, and no code in it is run.

    Raises UserError where the file is damaged, is no checkpoint, or lacks a key.
    """
    payload = _load_verified(path)
    if "validations" not in payload and (read_record(path) or {}).get("format") == 1:
        payload["validations"] = []
    missing = [key for key in REQUIRED_KEYS if key not in payload]
    if missing:
        raise UserError(f"{path} is not a full checkpoint: it lacks {', '.join(missing)}")
    return payload


def load_weights(path: Path) -> Weights:
    """Return the weights in a file: a checkpoint of ours, or a state dict, bare or under one of the field's usual keys.

    A `module.` prefix, left by DataParallel, is taken off. Raises UserError where there are no weights.
    """
    payload = _load_verified(path)
    key = next((key for key in _WEIGHTS_KEYS if isinstance(payload.get(key), Mapping)), None)
    state_dict = payload if key is None else payload[key]
    if not state_dict or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state_dict.items()
    ):
        raise UserError(
            f"{path} holds no weights: found the keys {', '.join(map(str, list(payload)[:8])) or 'none'}, and looked "
            f"for a state dict under {', '.join(_WEIGHTS_KEYS)} or at the top"
        )
    if all(name.startswith("module.") for name in state_dict):
        state_dict = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    return Weights(path, state_dict, {} if key is None else payload)


def _load_verified(path: Path) -> dict[str, Any]:
    reason = broken_seal(path)
    if reason:
        raise UserError(f"{path} is damaged: {reason}")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _FORBIDDEN_GLOBAL.search(str(error))
        what = f"it refers to {found.group(1)}" if found else _first_line(error)
        raise UserError(
            f"{path} holds more than tensors and plain values ({what}): loading it could run code, so it is refused. "
            "If you trust it, save its state dict alone with torch.save and pass that file"
        ) from error
    except _BAD_PICKLE as error:
        raise UserError(f"{path} cannot be read by torch: {_first_line(error)}") from error
    if not isinstance(payload, dict):
        raise UserError(f"{path} holds a {type(payload).__name__}, not a checkpoint or state dict")
    return payload


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def load_into(network: torch.nn.Module, weights: Weights) -> None:
    """Copy weights into a detector, strictly; raises UserError that lists the layers and the setting likely wrong."""
    own = network.state_dict()
    theirs = weights.state_dict
    resized = [
        f"{name} is {tuple(theirs[name].shape)} there and {tuple(tensor.shape)} here"
        for name, tensor in own.items()
        if name in theirs and theirs[name].shape != tensor.shape
    ]
    missing = [name for name in own if name not in theirs]
    surplus = [name for name in theirs if name not in own]
    complaints = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("layers of another size", resized), ("missing", missing), ("unknown", surplus))
        if names
    ]
    if complaints:
        advice = _likely_setting(resized, missing, surplus)
        raise UserError(f"{weights.path} does not fit this detector: {'; '.join(complaints)}. {advice}")
    network.load_state_dict(theirs, strict=True)


def _likely_setting(resized: list[str], missing: list[str], surplus: list[str]) -> str:
    """Say which flag most likely differs from the one the weights were trained with."""
    names = " ".join(resized + missing + surplus)
    if resized and "front_end" in names:
        return "Most likely --ssl_model is not the front-end these weights were trained with"
    if not resized and all(".projection." in f".{name}" for name in missing + surplus):
        return "Most likely --use_contrastive differs: it adds the projection head"
    if len(missing) > 3 and len(surplus) > 3:
        return "Most likely the file is of another --model_type, or of another program with other layer names"
    return "Most likely --ssl_model or --model_type is not the one these weights were trained with"
