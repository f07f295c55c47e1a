"""The points of a run's curves, as TensorBoard and W&B get them: of every epoch and every validation within one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from training.checkpoints.history import History
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.rows import EpochMetrics, EpochTime, StepMetrics
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
    """Every point there is, in the order of training; more training adds points at the ends and changes none.

    It has the first `num_epochs` and `num_validations` of a history. A point is made when somebody asks for it, so that
    whoever has the earlier ones does not pay for them again.
    """

    history: History
    num_epochs: int
    num_validations: int

    @classmethod
    def of(cls, history: History, until: CheckpointRecord | None = None) -> Curves:
        """Return the curves of a history; with `until` the points that this checkpoint of the run holds."""
        if until is None:
            return cls(history, len(history.epochs), len(history.validations))
        num_epochs = bisect_right(history.epochs, until.epoch, key=lambda row: row.epoch)
        return cls(history, num_epochs, bisect_right(history.validations, until.step, key=_step))

    def __len__(self) -> int:
        """Return the number of points."""
        return self.num_epochs + self.num_validations

    def epochs(self, first: int = 0, end: int | None = None) -> list[EpochPoint]:
        """Return the points of epochs from the one numbered `first`, from 0, up to before `end`."""
        here, figures = slice(first, self.num_epochs if end is None else end), self.history.figures
        pairs = zip(self.history.epochs[here], self.history.times[here], strict=True)
        return [EpochPoint(*pair, figures) for pair in pairs]

    def validations(self, first: int = 0) -> list[StepPoint]:
        """Return the points of validations within epochs from the one numbered `first`, from 0, on."""
        here, figures = slice(first, self.num_validations), self.history.figures
        pairs = zip(self.history.validations[here], self.history.validation_times[here], strict=True)
        return [StepPoint(*pair, figures) for pair in pairs]

    def in_order(self, first: int = 0) -> Iterator[dict[str, float]]:
        """Yield the values of points in the order of training, each with its epoch, its step and its time.

        The first `first` of them are left out.
        """
        validations = bisect_left(range(self.num_validations), first, key=self._number_of_validation)
        points = [(p.metrics.step, 0, p.metrics.epoch, p.finished_at, p.scalars) for p in self.validations(validations)]
        epochs = self.epochs(first - validations)
        points += [(p.metrics.step, 1, p.metrics.epoch, p.times.finished_at, p.scalars) for p in epochs]
        for step, _, epoch, finished_at, scalars in sorted(points, key=lambda point: point[:2]):
            yield {**scalars, "epoch": epoch, "global_step": step, "_timestamp": finished_at}

    def _number_of_validation(self, index: int) -> int:
        """Return how many points come before a validation: at the same step it comes before the epoch."""
        return index + bisect_left(
            self.history.epochs, self.history.validations[index].step, hi=self.num_epochs, key=_step
        )


def _step(row: EpochMetrics | StepMetrics) -> int:
    return row.step
