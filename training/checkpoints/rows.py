"""Rows of figures, of epochs and of validations within them, and which epoch is the best. No torch needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from training.settings.tasks import Figures
from utils.stored_values import is_count, is_duration, is_number, require


@dataclass(frozen=True)
class _Row:
    """Figures by name, and the counts that say of when they are; files hold all of it side by side."""

    epoch: int
    step: int
    figures: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        """Return a figure, as `row["val_eer"]`; raises KeyError where the task has none of that name."""
        return self.figures[name]

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Rebuild what `as_dict` gave; raises OddValueError where a value is missing or makes no sense."""
        counts = {f.name for f in fields(cls)} - {"figures"}
        require(stored, {name: is_duration if name == "learning_rate" else is_count for name in counts})
        require(stored, dict.fromkeys(stored, is_number))
        figures = {name: value for name, value in stored.items() if name not in counts}
        return cls(figures=figures, **{name: value for name, value in stored.items() if name in counts})


@dataclass(frozen=True)
class EpochMetrics(_Row):
    """The figures of one completed epoch, of training and of validation. What they are is said by the task."""

    learning_rate: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as files hold it."""
        return {"epoch": self.epoch, "step": self.step, **self.figures, "learning_rate": self.learning_rate}


@dataclass(frozen=True)
class StepMetrics(_Row):
    """The validation figures after one step, within an epoch or at its end; `epoch` counts completed epochs then."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as files hold it."""
        return {"step": self.step, "epoch": self.epoch, **self.figures}


@dataclass(frozen=True)
class EpochTime:
    """When an epoch ended (seconds since 1970) and how long its training and validation took, in seconds.

    `step_ms` is the mean of its steps in milliseconds, waiting for data included and for saving not. `blocked_seconds`
    is how long saving held up training since the epoch before ended, the save of that one included. Both are None for
    an epoch of a version that did not measure them.
    """

    epoch: int
    finished_at: float
    seconds: float
    step_ms: float | None = None
    blocked_seconds: float | None = None


def best_epoch(epochs: Sequence[EpochMetrics], figures: Figures) -> EpochMetrics | None:
    """Return the best epoch by the figures that rank, of equal ones the earliest; None for no epoch."""
    return min(epochs, key=lambda row: rank(row, figures), default=None)


def rank(row: EpochMetrics, figures: Figures) -> tuple[float, ...]:
    """Return what sorts epochs from the best on; see `best_epoch`."""
    return *figures.order(row.figures), row.epoch


def plateau_reductions(epochs: Sequence[EpochMetrics], figures: Figures, patience: int) -> int:
    """Return how often more than `patience` epochs in a row gave no new best one; each time the count starts anew.

    As torch's ReduceLROnPlateau counts: `patience` such epochs are waited for, and the next one lowers the rate.
    """
    reductions = waited = 0
    best: EpochMetrics | None = None
    for row in epochs:
        if best is None or rank(row, figures) < rank(best, figures):
            best, waited = row, 0
        else:
            waited += 1
        if waited > patience:
            reductions, waited = reductions + 1, 0
    return reductions
