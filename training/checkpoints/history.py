"""What a run's past is, as plain facts: figures and times of epochs and validations, sessions, what is best.

All that is asked of it are queries, never saved opinions, so that a stop cannot change an answer. Checkpoints carry
the sessions, so that the run page can mark every stop and resume. A process that saves nothing leaves no entry, as it
leaves no step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EpochMetrics:
    """The figures of one completed epoch. Losses are means, EERs and accuracy are in percent."""

    epoch: int
    step: int
    train_loss: float
    train_eer: float
    val_loss: float
    val_acc: float
    val_eer: float
    learning_rate: float


@dataclass(frozen=True)
class StepMetrics:
    """The validation figures after one step, within an epoch or at its end; `epoch` counts completed epochs then."""

    step: int
    epoch: int
    val_loss: float
    val_acc: float
    val_eer: float


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


@dataclass
class Pace:
    """What the steps of the epoch under way took so far, in all processes: sums in seconds, and how many they are."""

    steps: int = 0
    step_seconds: float = 0.0
    blocked_seconds: float = 0.0

    def end_epoch(self, epoch: int, seconds: float) -> EpochTime:
        """Return the times of the epoch that ends now and took `seconds`."""
        step_ms = 1000 * self.step_seconds / self.steps if self.steps else None
        return EpochTime(epoch, time.time(), seconds, step_ms, self.blocked_seconds)


@dataclass(frozen=True)
class Session:
    """One process that trained.

    `started_at` is in seconds since 1970 and `step` the number of steps done before. `source` is the checkpoint that it
    went on from, saved at `source_saved_at`; None for the first process of a run, whose `source` is the file that its
    weights came from, "" for none. `environment` is what
    `utils.machine.describe_environment` gives, and `changes` has name -> [old, new] for each setting, and each part
    of the data, that was another one before.
    """

    started_at: float
    step: int
    source: str
    source_saved_at: float | None
    environment: dict[str, Any]
    changes: dict[str, list[Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for payloads."""
        return asdict(self)


def history_in(payload: Mapping[str, Any]) -> list[EpochMetrics]:
    """Return the figures of the epochs in a payload."""
    return [EpochMetrics(**row) for row in payload["history"]]


def times_in(payload: Mapping[str, Any]) -> list[EpochTime]:
    """Return when the epochs in a payload ended, and how long they took."""
    return [EpochTime(**row) for row in payload["times"]]


def validation_times_in(payload: Mapping[str, Any]) -> list[float]:
    """Return when the validations in a payload ended; those that an earlier version did not time seem to end now."""
    known = list(payload.get("validation_times", []))
    return known or [time.time()] * len(payload["validations"])


def sessions_in(payload: Mapping[str, Any]) -> list[Session]:
    """Return the entries in a payload; none in checkpoints of earlier versions."""
    return [Session(**entry) for entry in payload.get("sessions", [])]


def best_epoch(history: Sequence[EpochMetrics]) -> EpochMetrics | None:
    """Return the epoch with the lowest validation EER; ties go to the lower validation loss, then to the earlier epoch.

    The validation EER on ASVspoof 2019 LA is near 0 for large models from the first epoch on, so ties are the rule.

    >>> best_epoch([]) is None
    True
    """
    return min(history, key=rank, default=None)


def rank(row: EpochMetrics) -> tuple[float, float, int]:
    """Return what sorts epochs from the best on; see `best_epoch`."""
    return row.val_eer, row.val_loss, row.epoch


def is_stalled(epoch: int, best: EpochMetrics | None, patience: int) -> bool:
    """Whether training should end after `epoch` epochs: the last `patience` of them gave no new best one (0: never).

    >>> is_stalled(3, None, patience=0)
    False
    """
    return patience > 0 and epoch - (best.epoch if best else 0) >= patience


def plateau_reductions(history: Sequence[EpochMetrics], patience: int) -> int:
    """Return how often `patience` epochs in a row gave no new best one; each time the count starts anew.

    >>> plateau_reductions([], patience=3)
    0
    """
    reductions = waited = 0
    best: EpochMetrics | None = None
    for row in history:
        if best is None or rank(row) < rank(best):
            best, waited = row, 0
        else:
            waited += 1
        if waited == patience:
            reductions, waited = reductions + 1, 0
    return reductions
