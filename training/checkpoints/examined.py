"""What a file is by its record: a checkpoint, weights, frozen weights, or of no use. No torch needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.frozen_reference import (
    FROZEN_KIND,
    FrozenFile,
    find_frozen,
    frozen_file_from_dict,
)
from training.checkpoints.record import CheckpointRecord, Kind, record_from_dict
from training.checkpoints.sealed_file import cannot_be_read, read_record
from training.settings.options import Options
from utils.errors import UserError


@dataclass(frozen=True)
class WeightsFile:
    """A file that can start a run and not resume one; its record is known if bonafide wrote it."""

    path: Path
    bytes_on_disk: int
    record: CheckpointRecord | None = None

    @property
    def is_best(self) -> bool:
        """Whether this is the file with the best weights of a run."""
        return self.record is not None and self.path.name.startswith(self.record.description.best_weights_name)

    @property
    def epoch(self) -> int | None:
        """The completed epochs, None where that is not known."""
        return self.record.epoch if self.record else None

    @property
    def options(self) -> Options | None:
        """The settings that its weights were trained with, None where they are not known."""
        return self.record.options if self.record else None


@dataclass(frozen=True)
class UnusableFile:
    """A file under a checkpoint's name that must not be used, and why."""

    path: Path
    reason: str


def examine(path: Path) -> CheckpointRecord | WeightsFile | FrozenFile | UnusableFile:
    """Return what a file is, judging by its record and never by its name. See `broken_seal` for damage elsewhere.

    A checkpoint whose frozen weights are not there is unusable.
    """
    try:
        return facts_of(read_record(path), path, path.stat().st_size)
    except (BadCheckpointFileError, UserError) as error:
        return UnusableFile(path, str(error))
    except OSError as error:  # it went meanwhile
        return UnusableFile(path, cannot_be_read(error))


def facts_of(stored: Mapping[str, Any] | None, path: Path, size: int) -> CheckpointRecord | WeightsFile | FrozenFile:
    """Return what a file of `size` bytes is, given the record in it.

    Raises BadCheckpointFileError or UserError where this version makes no sense of the record, and where the frozen
    weights that it refers to are not there.
    """
    if stored is None:
        return WeightsFile(path, size)
    if stored.get("kind") == FROZEN_KIND:
        return frozen_file_from_dict(stored, path, size)
    record = record_from_dict(stored, path, size)
    if record.frozen:
        find_frozen(path, record.frozen)
    return WeightsFile(path, size, record) if record.kind is Kind.WEIGHTS else record
