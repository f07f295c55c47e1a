"""Everything that a run's past is, as plain facts: figures and times of epochs and validations, sessions, what is best.

A state has it, a payload holds it and a record sums it up; all of them are read here. What is asked of it are queries,
never saved opinions, so that a stop cannot change an answer. No torch needed.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

from training.checkpoints.appended import Appended
from training.checkpoints.history_checks import require_figures, require_history
from training.checkpoints.rows import EpochMetrics, EpochTime, StepMetrics, best_epoch
from training.settings.tasks import Figures

Lineage = tuple[tuple[str, int], ...]
"""Pairs of a run's id and the step that it began at; see `CheckpointRecord`."""


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
    weights came from, "" for none. `environment` is what `utils.machine.describe_environment` gives, and `changes` has
    name -> [old, new] for each setting, and each part of the data, that was another one before.
    """

    started_at: float
    step: int
    source: str
    source_saved_at: float | None
    environment: dict[str, Any]
    changes: dict[str, list[Any]]


@dataclass
class UnfinishedEpoch:
    """What the epoch under way has gathered so far, so that its training loss is exact after a resume.

    `loss_sum` is the sum of the steps' losses, each times its number of utterances.
    """

    batches_per_epoch: int
    batches_done: int = 0
    utterances: int = 0
    loss_sum: float = 0.0

    @property
    def is_trained(self) -> bool:
        """Whether the epoch's last batch is done."""
        return self.batches_done == self.batches_per_epoch

    @property
    def is_half_done(self) -> bool:
        """Whether the epoch was begun and its last batch is not done."""
        return 0 < self.batches_done < self.batches_per_epoch

    @property
    def mean_loss(self) -> float:
        """The mean over utterances of the loss of their step."""
        return self.loss_sum / self.utterances

    def add(self, loss: float, utterances: int, num_batches: int = 1) -> None:
        """Take in one step over one batch or several, whose `loss` is a mean over their utterances."""
        self.batches_done += num_batches
        self.utterances += utterances
        self.loss_sum += loss * utterances


class Standing(Protocol):
    """Where a run stands: what a History and a CheckpointRecord both say."""

    @property
    def epoch(self) -> int:
        """How many epochs are completed."""

    @property
    def best(self) -> EpochMetrics | None:
        """The best epoch so far, of those whose checkpoint could be saved."""


def is_stalled(standing: Standing, patience: int) -> bool:
    """Whether training should end here: the last `patience` epochs gave no new best one (0: never)."""
    best = standing.best
    return patience > 0 and standing.epoch - (best.epoch if best else 0) >= patience


@dataclass
class History:
    """The past of one run.

    `figures` say what its epochs give and which is the best. `epoch` counts completed epochs, `step` the steps since
    the run began, and `under_way` is the epoch ahead. `epochs` has the figures of every completed epoch, `validations`
    those that --val_interval asked for, `lost_epochs` are those whose checkpoint a full disk refused. `times`,
    `validation_times`, `pace` and the seconds say when and how long, and `sessions` which processes trained: they
    differ from machine to machine. All the rest is the same however often the run was stopped. Rows are added at the
    ends of lists and never changed, but for `lost_epochs`, so that nothing need go through all of them again.
    """

    figures: Figures
    under_way: UnfinishedEpoch
    lineage: Lineage
    epoch: int = 0
    step: int = 0
    epochs: list[EpochMetrics] = field(default_factory=list)
    validations: list[StepMetrics] = field(default_factory=list)
    lost_epochs: list[int] = field(default_factory=list)
    times: list[EpochTime] = field(default_factory=list)
    validation_times: list[float] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    training_seconds: float = 0.0
    seconds_in_epoch: float = 0.0
    _best: tuple[int, list[int], EpochMetrics | None] = field(default=(0, [], None), init=False, compare=False)

    @property
    def last(self) -> EpochMetrics | None:
        """The epoch that was completed last."""
        return self.epochs[-1] if self.epochs else None

    @property
    def best(self) -> EpochMetrics | None:
        """The best epoch so far, of those whose checkpoint could be saved; of equal ones the earliest."""
        number, lost, best = self._best
        if lost != self.lost_epochs or number > len(self.epochs):
            number, best = 0, None
        rows = [row for row in self.epochs[number:] if row.epoch not in self.lost_epochs]
        best = best_epoch([best, *rows] if best else rows, self.figures)
        self._best = len(self.epochs), list(self.lost_epochs), best
        return best

    @property
    def validated(self) -> StepMetrics | None:
        """The validation figures of the weights as they are now; None where they were not validated."""
        last = self.last
        if last and last.step == self.step:
            of_validation = {figure.name: last[figure.name] for figure in self.figures.of_validation}
            return StepMetrics(last.epoch, last.step, of_validation)
        return next((row for row in self.validations[-1:] if row.step == self.step), None)

    @property
    def batches_done(self) -> int:
        """How many batches of the epoch under way are trained."""
        return self.under_way.batches_done

    @property
    def batches_per_epoch(self) -> int:
        """How long the epoch under way is."""
        return self.under_way.batches_per_epoch

    @property
    def position(self) -> float:
        """How many epochs are trained, the one under way as a fraction."""
        under_way = self.under_way
        return self.epoch + (under_way.batches_done / under_way.batches_per_epoch if under_way.batches_done else 0.0)

    def epochs_at(self, step: int) -> float:
        """Return how many epochs were trained after `step` steps, the one under way as a fraction.

        Between the epochs' ends, whose steps are known, steps count alike; so they do beyond the last one.
        """
        number = bisect_left(self.epochs, step, key=lambda row: row.step)
        first, before = _end_of(self.epochs[number - 1]) if number else (0, 0.0)
        now = max(first, self.step), max(before, self.position)
        last, after = _end_of(self.epochs[number]) if number < len(self.epochs) else now
        return before + (after - before) * (min(step, last) - first) / max(1, last - first)

    def complete_epoch(self, row: EpochMetrics, batches_per_epoch: int) -> None:
        """Close the epoch under way, whose figures and times are known now, and begin the next one."""
        self.epoch = row.epoch
        self.epochs.append(row)
        self.times.append(self.pace.end_epoch(row.epoch, self.seconds_in_epoch))
        self.seconds_in_epoch, self.pace = 0.0, Pace()
        self.under_way = UnfinishedEpoch(batches_per_epoch)

    def taken(self) -> dict[str, Any]:
        """Return what a payload holds of it, but for `unfinished_epoch`, which has tensors too; lists as `Appended`."""
        last, best = self.last, self.best
        named = {figure.name: last[figure.name] if last else None for figure in self.figures.all}
        first = self.figures.first.name
        return {
            "epoch": self.epoch,
            "step": self.step,
            **named,
            "metrics": named,
            f"best_{first}": best[first] if best else None,
            "history": Appended(self.epochs, EpochMetrics.as_dict),
            "validations": Appended(self.validations, StepMetrics.as_dict),
            "lost_epochs": list(self.lost_epochs),
            "lineage": [list(part) for part in self.lineage],
            "times": Appended(self.times, asdict),
            "validation_times": Appended(self.validation_times, float),
            "pace": asdict(self.pace),
            "training_seconds": self.training_seconds,
            "seconds_in_epoch": self.seconds_in_epoch,
            "sessions": Appended(self.sessions, asdict),
        }

    @classmethod
    def in_payload(cls, payload: Mapping[str, Any], figures: Figures) -> History:
        """Return what the payload of a checkpoint holds, of any format.

        What an earlier version did not keep is empty; validations that it did not time seem to end now. Raises
        KeyError where something else is missing, and OddValueError where it makes no sense.
        """
        require_history(payload)
        ahead = payload["unfinished_epoch"]
        for rows, known in (("history", figures.all), ("validations", figures.of_validation)):
            require_figures(payload[rows], [figure.name for figure in known])
        validations = [StepMetrics.from_dict(row) for row in payload["validations"]]
        return cls(
            figures=figures,
            under_way=UnfinishedEpoch(**{f.name: ahead[f.name] for f in fields(UnfinishedEpoch)}),
            lineage=tuple((run_id, step) for run_id, step in payload["lineage"]),
            epoch=payload["epoch"],
            step=payload["step"],
            epochs=[EpochMetrics.from_dict(row) for row in payload["history"]],
            validations=validations,
            lost_epochs=list(payload["lost_epochs"]),
            times=[EpochTime(**row) for row in payload["times"]],
            validation_times=list(payload.get("validation_times", [])) or [time.time()] * len(validations),
            sessions=[Session(**entry) for entry in payload.get("sessions", [])],
            pace=Pace(**payload.get("pace", {})),
            training_seconds=payload["training_seconds"],
            seconds_in_epoch=payload["seconds_in_epoch"],
        )


def _end_of(row: EpochMetrics) -> tuple[int, float]:
    return row.step, float(row.epoch)
