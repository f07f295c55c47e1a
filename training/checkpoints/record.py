"""One checkpoint as facts: what listing, planning and resuming must know before any tensor is read. No torch needed."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from training.checkpoints.decision import Decision
from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.frozen_reference import (
    FROZEN_KIND,
    FrozenReference,
)
from training.checkpoints.history import Lineage
from training.checkpoints.history_checks import is_lineage
from training.checkpoints.rows import EpochMetrics, StepMetrics
from training.settings.options import Options, options_from_record
from training.settings.tasks import DETECTION, Figure, Figures, TaskDescription
from utils.numerics import NUMERICS
from utils.stored_values import (
    Check,
    OddValueError,
    anything,
    is_count,
    is_duration,
    is_list_of,
    is_plain_name,
    is_table_of,
    is_text,
    is_time,
    require,
    require_plain,
    shown,
)

SAVED_BY_TIME = "saved_by_time"
"""The key in the metadata of a checkpoint that only the clock asked for."""
STATE_DICT = "_state_dict"
"""How the keys of a payload end under which a network, an optimizer or a schedule is."""
FORMAT = 3
"""2 has `name`, `validated` and `frozen` in records and `validations` in payloads, which 1 had not.
3 has `task`, `figures`, `parts`, `weights` and `numerics` in records: the earlier ones are all of detectors."""
_PARTS_OF_DETECTION = ("model_state_dict", "optimizer_state_dict", "scheduler_state_dict", "front_end_config")
_WEIGHTS_OF_DETECTION = ("model_state_dict", "front_end_config")
# The keys without which a file cannot be resumed, beside those of its task's parts.
_REQUIRED_KEYS = (
    "epoch",
    "step",
    "metrics",
    "history",
    "validations",
    "lost_epochs",
    "times",
    "training_seconds",
    "seconds_in_epoch",
    "unfinished_epoch",
    "lineage",
    "random_states",
    "args",
    "config",
)
REQUIRED_KEYS = (*_PARTS_OF_DETECTION, *_REQUIRED_KEYS)
"""The keys of a detector's checkpoint, which are those of a file that does not say what it is of."""
_NOT_STORED = ("path", "bytes_on_disk", "kept")
_NEW_KEYS_OF_FORMAT_2 = ("validations",)
_MOST_THREADS = 4096
# What the JSON of a record must hold, beside what is checked where it is taken apart.
_STORED: Mapping[str, Check] = {
    "kind": is_plain_name,
    "lineage": is_lineage,
    "epoch": is_count,
    "step": is_count,
    "batches_done": is_count,
    "batches_per_epoch": is_count,
    "learning_rate": is_duration,
    "options": is_table_of(anything),
    "data": is_table_of(is_text),
    "metadata": is_table_of(anything),
    "name": lambda value: value == "" or is_plain_name(value),
    "task": is_plain_name,
    "numerics": is_count,
    "figures": is_list_of(is_table_of(anything)),
    "parts": is_list_of(is_plain_name),
    "weights": is_list_of(is_plain_name),
}


class Kind(enum.Enum):
    """What a file of ours holds."""

    EPOCH = "epoch"  # the whole state after an epoch and its validation
    STEP = "step"  # the whole state inside an epoch, or after its last step and before its validation
    WEIGHTS = "weights"  # weights to start from; nothing to resume
    FROZEN = FROZEN_KIND  # weights that do not change, for the checkpoints of a run to refer to


def run_id_at(lineage: Lineage, step: int) -> str | None:
    """Return the id of the run that made `step`; None for no such step. See `CheckpointRecord` for lineages."""
    began = [run_id for run_id, first in lineage if first < step]
    return began[-1] if began else None


@dataclass(frozen=True)
class CheckpointRecord:
    """The facts of one checkpoint file.

    `epoch` counts completed epochs and `step` the steps since the run began; `batches_done` of `batches_per_epoch` are
    done in epoch `epoch + 1`. `last` are the figures of epoch `epoch` (None before the first is complete) and `best`
    those of the best epoch so far; `validated` are the validation figures of exactly these weights, None where they
    were not validated. `task` is the name of what is trained, `figures` say what its epochs give, which of it ranks
    them and what the best file is called, and `parts` are the keys of the file that hold the task's networks,
    optimizers and schedules, and what builds them: all of them belong together, and all are required. `weights` are
    those of the parts that a file of weights for reuse has. `numerics` says which arithmetic made the last step. `kept`
    is what the task says of exactly these weights, by name. `data` names the contents of the protocols by hash. `name`
    is the file name it was saved under, "" where that is unknown: names are for people, but only a file that still has
    the name which the program gave it may be deleted by the program. `frozen` says which weights are in a file of their
    own, since training does not change them; None for a whole file. `lineage` are pairs (run id, step it began at): a
    run that was resumed from an older checkpoint, leaving later ones behind, or whose folder is not where it was, since
    it may be a copy, goes on under a new id, so that the two futures of one past are told apart.
    """

    path: Path
    bytes_on_disk: int
    kind: Kind
    lineage: Lineage
    epoch: int
    step: int
    batches_done: int
    batches_per_epoch: int
    learning_rate: float
    last: EpochMetrics | None
    best: EpochMetrics | None
    options: Options
    data: Mapping[str, str]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    validated: StepMetrics | None = None
    name: str = ""
    frozen: FrozenReference | None = None
    task: str = DETECTION.name
    figures: Figures = DETECTION.figures
    parts: tuple[str, ...] = _PARTS_OF_DETECTION
    weights: tuple[str, ...] = _WEIGHTS_OF_DETECTION
    kept: Mapping[str, Any] = field(default_factory=dict)
    numerics: int = NUMERICS
    format: int = FORMAT

    @property
    def saved_at_s(self) -> float | None:
        """When it was saved, in seconds since 1970; None where the record does not say, or says what no clock shows."""
        saved_at: Any = self.metadata.get("saved_at")
        return float(saved_at) if is_time(saved_at) and saved_at else None

    @property
    def place(self) -> str:
        """Where the run folder was in which it was saved, from the root; "" where an earlier version saved it."""
        place = self.metadata.get("run_folder")
        return place if isinstance(place, str) else ""

    @property
    def saved_by_time(self) -> bool:
        """Whether only the clock asked for it (--max_lost); not where an earlier version saved it, by steps."""
        return self.metadata.get(SAVED_BY_TIME) is True

    @property
    def num_threads(self) -> int | None:
        """How many threads torch computed with, None where the record does not say."""
        return self.metadata.get("num_threads")

    @property
    def required_keys(self) -> tuple[str, ...]:
        """The keys without which a file of this kind and format is not whole."""
        if self.kind is Kind.WEIGHTS:
            return tuple(key for key in self.weights if key.endswith(STATE_DICT))
        missing = _NEW_KEYS_OF_FORMAT_2 if self.format < 2 else ()
        return (*self.parts, *(key for key in _REQUIRED_KEYS if key not in missing))

    @property
    def description(self) -> TaskDescription:
        """What the record says of what is trained."""
        return TaskDescription(self.task, self.figures)

    @property
    def decision(self) -> Decision | None:
        """The threshold of exactly these weights, where a task keeps one; none before they were validated."""
        return Decision.from_dict(self.kept.get("decision"))

    @property
    def run_id(self) -> str:
        """The id of the run that made this checkpoint's last step.

        A run that goes on from the last step of an epoch may write that epoch's checkpoint without a step of its own.
        """
        return self.run_id_at(self.step) or self.lineage[-1][0]

    def run_id_at(self, step: int) -> str | None:
        """Return the id of the run that this checkpoint's training had when it made `step`; None for no such step."""
        return run_id_at(self.lineage, step)

    def belongs_to(self, lineage: Lineage) -> bool:
        """Whether the run with this lineage made this checkpoint: the same run had the same id at its step."""
        return self.run_id == (run_id_at(lineage, self.step) or lineage[-1][0])

    @property
    def position(self) -> tuple[int, int]:
        """How far training is: later checkpoints of one run compare greater."""
        return self.step, self.epoch

    @property
    def is_mid_epoch(self) -> bool:
        """Whether an epoch is half done, so that what defines the order of its batches may not change."""
        return 0 < self.batches_done < self.batches_per_epoch

    @property
    def awaits_validation(self) -> bool:
        """Whether the epoch's last step is done and its validation is not."""
        return self.batches_done == self.batches_per_epoch

    @property
    def progress_in_epoch(self) -> str:
        """How far a step checkpoint is in its epoch, in words."""
        if self.awaits_validation:
            return f"epoch {self.epoch + 1} trained, not validated"
        return f"{self.batches_done} of {self.batches_per_epoch} batches of epoch {self.epoch + 1}"

    def as_dict(self) -> dict[str, Any]:
        """Return what is written into the file as JSON: all but what the file system knows."""
        stored = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_STORED}
        stored |= {
            **self.kept,
            "kind": self.kind.value,
            "last": self.last.as_dict() if self.last else None,
            "best": self.best.as_dict() if self.best else None,
            "validated": self.validated.as_dict() if self.validated else None,
            "figures": self.figures.as_list(),
            "parts": list(self.parts),
            "weights": list(self.weights),
            "frozen": self.frozen.as_dict() if self.frozen else None,
            "options": self.options.as_dict(),
            "data": dict(self.data),
            "metadata": dict(self.metadata),
        }
        return stored


def record_from_dict(stored: Mapping[str, Any], path: Path, bytes_on_disk: int) -> CheckpointRecord:
    """Rebuild a record from its JSON; raises BadCheckpointFileError where this version does not know its format."""
    if type(stored.get("format")) is not int or not 1 <= stored["format"] <= FORMAT:
        raise BadCheckpointFileError(
            f"it has format {shown(stored.get('format'))} and this version reads up to {FORMAT}: update bonafide"
        )
    if stored["format"] == 1:
        stored = {**stored, "name": "", "validated": None, "frozen": None}
    if stored["format"] < 3:
        parts = _WEIGHTS_OF_DETECTION if stored.get("kind") == Kind.WEIGHTS.value else _PARTS_OF_DETECTION
        of_detection = {"parts": list(parts), "weights": list(_WEIGHTS_OF_DETECTION), "numerics": 1}
        stored = {
            "decision": None,
            **stored,
            "task": DETECTION.name,
            "figures": DETECTION.figures.as_list(),
            **of_detection,
        }
    known = {f.name for f in fields(CheckpointRecord)} - set(_NOT_STORED)
    missing = sorted(known - set(stored))
    if missing:
        raise BadCheckpointFileError(f"its record lacks {', '.join(missing)}")
    try:
        require_plain(dict(stored))
        require(stored, _STORED)
        figures = Figures.from_list(stored["figures"])
        values = {name: stored[name] for name in known} | {
            "kind": Kind(stored["kind"]),
            "lineage": tuple((run_id, step) for run_id, step in stored["lineage"]),
            "last": _row(EpochMetrics, stored["last"], figures.all),
            "best": _row(EpochMetrics, stored["best"], figures.all),
            "validated": _row(StepMetrics, stored["validated"], figures.of_validation),
            "frozen": FrozenReference.from_dict(stored["frozen"]) if stored["frozen"] is not None else None,
            "options": options_from_record(stored["options"]),
            "figures": figures,
            "parts": tuple(stored["parts"]),
            "weights": tuple(stored["weights"]),
            "kept": {name: value for name, value in stored.items() if name not in known},
        }
        Decision.from_dict(values["kept"].get("decision"))  # whoever asks for it later need not doubt it
        _require_agreement(values)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise BadCheckpointFileError(f"its record is damaged ({error})") from error
    return CheckpointRecord(path=path, bytes_on_disk=bytes_on_disk, **values)


_AnyRow = TypeVar("_AnyRow", EpochMetrics, StepMetrics)


def _row(kind: type[_AnyRow], stored: Any, figures: Sequence[Figure]) -> _AnyRow | None:
    """Return a row of figures; None for none. Raises OddValueError where it is not what the task's figures say."""
    if stored is None:
        return None
    row = kind.from_dict(stored)
    names = [figure.name for figure in figures]
    if sorted(row.figures) != sorted(names):
        raise OddValueError(f"figures {', '.join(names)} expected, found {shown(', '.join(row.figures))}")
    return row


def _require_agreement(values: Mapping[str, Any]) -> None:
    """Raise OddValueError where two values of a record, each of them sensible, cannot both be true."""
    if values["batches_done"] > values["batches_per_epoch"]:
        raise OddValueError(f"{values['batches_done']} of {values['batches_per_epoch']} batches are done")
    if "num_threads" in values["metadata"]:
        require(values["metadata"], {"num_threads": lambda value: is_count(value) and 0 < value <= _MOST_THREADS})


def record_document(record: CheckpointRecord) -> dict[str, Any]:
    """Return all that a record says: `path`, `bytes`, and the keys of the JSON record inside the file.

    Those are kind, lineage, epoch, step, batches_done, batches_per_epoch, learning_rate, last, best, options, data,
    metadata, validated, name, frozen, task, figures, parts, weights, numerics and format, and what the task keeps of
    these weights, such as `decision`; see CheckpointRecord for what they mean.
    """
    return {"path": str(record.path), "bytes": record.bytes_on_disk, **record.as_dict()}
