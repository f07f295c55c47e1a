"""What the logs of a run show: the figures of every epoch and every validation within one, as the state has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.checkpoints.history import EpochMetrics, EpochTime, StepMetrics, history_in, times_in, validation_times_in
from training.checkpoints.record import CheckpointRecord
from training.state.train_state import TrainState

EPOCH_SCALARS = {
    "train/loss": "train_loss",
    "train/eer": "train_eer",
    "val/loss": "val_loss",
    "val/accuracy": "val_acc",
    "val/eer": "val_eer",
    "train/learning_rate": "learning_rate",
}
TIME_SCALARS = {"time/epoch_s": "seconds", "time/step_ms": "step_ms", "time/blocked_by_saving_s": "blocked_seconds"}
STEP_SCALARS = {"val_step/loss": "val_loss", "val_step/accuracy": "val_acc", "val_step/eer": "val_eer"}


@dataclass(frozen=True)
class EpochPoint:
    """The figures of one epoch, and when it ended and how long it took."""

    metrics: EpochMetrics
    times: EpochTime

    @property
    def scalars(self) -> dict[str, float]:
        """The values of the curves, by name; a time that an earlier version did not measure is left out."""
        values = {tag: getattr(self.metrics, name) for tag, name in EPOCH_SCALARS.items()}
        values |= {tag: getattr(self.times, name) for tag, name in TIME_SCALARS.items()}
        return {tag: value for tag, value in values.items() if value is not None}


@dataclass(frozen=True)
class StepPoint:
    """The figures of a validation that --val_interval asked for, and when it ended (seconds since 1970)."""

    metrics: StepMetrics
    finished_at: float

    @property
    def scalars(self) -> dict[str, float]:
        """The values of the curves, by name."""
        return {tag: getattr(self.metrics, name) for tag, name in STEP_SCALARS.items()}


@dataclass(frozen=True)
class Curves:
    """Every point there is, in the order of training; more training adds points at the ends and changes none."""

    epochs: tuple[EpochPoint, ...] = ()
    validations: tuple[StepPoint, ...] = ()

    @classmethod
    def of(cls, state: TrainState) -> Curves:
        """Return the curves of a state."""
        return cls(
            tuple(EpochPoint(*pair) for pair in zip(state.history, state.times, strict=True)),
            tuple(StepPoint(*pair) for pair in zip(state.validations, state.validation_times, strict=True)),
        )

    @classmethod
    def in_payload(cls, payload: Mapping[str, Any]) -> Curves:
        """Return the curves in the payload of a checkpoint."""
        validations = [StepMetrics(**row) for row in payload["validations"]]
        return cls(
            tuple(EpochPoint(*pair) for pair in zip(history_in(payload), times_in(payload), strict=True)),
            tuple(StepPoint(*pair) for pair in zip(validations, validation_times_in(payload), strict=True)),
        )

    def until(self, record: CheckpointRecord) -> Curves:
        """Return the points that a checkpoint of this run holds."""
        return Curves(
            tuple(point for point in self.epochs if point.metrics.epoch <= record.epoch),
            tuple(point for point in self.validations if point.metrics.step <= record.step),
        )
