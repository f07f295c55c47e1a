"""The points of a run's curves, as TensorBoard and W&B get them: of every epoch and every validation within one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from training.checkpoints.history import EpochMetrics, EpochTime, History, StepMetrics
from training.checkpoints.record import CheckpointRecord
from training.settings.tasks import Figures

TIME_SCALARS = {"time/epoch_s": "seconds", "time/step_ms": "step_ms", "time/blocked_by_saving_s": "blocked_seconds"}


@dataclass(frozen=True)
class EpochPoint:
    """The figures of one epoch, and when it ended and how long it took."""

    metrics: EpochMetrics
    times: EpochTime
    figures: Figures

    @property
    def scalars(self) -> dict[str, float]:
        """The values of the curves, by name; a time that an earlier version did not measure is left out."""
        values = {f"{figure.part}/{figure.scalar}": self.metrics[figure.name] for figure in self.figures.all}
        values["train/learning_rate"] = self.metrics.learning_rate
        times = {tag: getattr(self.times, name) for tag, name in TIME_SCALARS.items()}
        return values | {tag: value for tag, value in times.items() if value is not None}


@dataclass(frozen=True)
class StepPoint:
    """The figures of a validation that --val_interval asked for, and when it ended (seconds since 1970)."""

    metrics: StepMetrics
    finished_at: float
    figures: Figures

    @property
    def scalars(self) -> dict[str, float]:
        """The values of the curves, by name."""
        return {f"val_step/{figure.scalar}": self.metrics[figure.name] for figure in self.figures.of_validation}


@dataclass(frozen=True)
class Curves:
    """Every point there is, in the order of training; more training adds points at the ends and changes none."""

    epochs: tuple[EpochPoint, ...] = ()
    validations: tuple[StepPoint, ...] = ()

    @classmethod
    def of(cls, history: History, until: CheckpointRecord | None = None) -> Curves:
        """Return the curves of a history; with `until` the points that this checkpoint of the run holds."""
        epochs = [EpochPoint(*pair, history.figures) for pair in zip(history.epochs, history.times, strict=True)]
        timed = zip(history.validations, history.validation_times, strict=True)
        validations = [StepPoint(*pair, history.figures) for pair in timed]
        if until:
            epochs = [point for point in epochs if point.metrics.epoch <= until.epoch]
            validations = [point for point in validations if point.metrics.step <= until.step]
        return cls(tuple(epochs), tuple(validations))

    def in_order(self) -> Iterator[dict[str, float]]:
        """Yield the values of all points in the order of training, each with its epoch, its step and its time."""
        points = [(p.metrics.step, 0, p.metrics.epoch, p.finished_at, p.scalars) for p in self.validations]
        points += [(p.metrics.step, 1, p.metrics.epoch, p.times.finished_at, p.scalars) for p in self.epochs]
        for step, _, epoch, finished_at, scalars in sorted(points, key=lambda point: point[:2]):
            yield {**scalars, "epoch": epoch, "global_step": step, "_timestamp": finished_at}
