"""What the run page tells of a run, as plain values, taken from its state or from a checkpoint's payload alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from training.checkpoints.history import (
    EpochMetrics,
    EpochTime,
    Session,
    StepMetrics,
    best_epoch,
    history_in,
    is_stalled,
    sessions_in,
    times_in,
)
from training.settings.options import Options
from training.state.last_validation import LastValidation, last_validation_in
from training.state.train_state import TrainState


@dataclass(frozen=True)
class Story:
    """How a run went so far.

    `epoch` counts completed epochs and `step` the steps since the run began; `batches_done` of `batches_per_epoch` are
    done in the epoch ahead. `num_parameters` is None where it is unknown. `interrupted` says in words why the process
    that writes the page trains no more although the target is not reached, "" where it trains on or has reached it.
    """

    options: Options
    epoch: int
    step: int
    batches_done: int
    batches_per_epoch: int
    history: Sequence[EpochMetrics]
    times: Sequence[EpochTime]
    validations: Sequence[StepMetrics]
    sessions: Sequence[Session]
    lost_epochs: Sequence[int]
    last_validation: LastValidation | None
    training_seconds: float
    num_parameters: int | None = None
    interrupted: str = ""

    @property
    def best(self) -> EpochMetrics | None:
        """The best epoch, of those whose checkpoint could be saved."""
        return best_epoch([row for row in self.history if row.epoch not in self.lost_epochs])

    @property
    def is_finished(self) -> bool:
        """Whether all epochs asked for are completed."""
        return self.epoch >= self.options.num_epochs

    @property
    def is_stalled(self) -> bool:
        """Whether --patience ended the run before its last epoch."""
        under_way = 0 < self.batches_done < self.batches_per_epoch
        return not self.is_finished and not under_way and is_stalled(self.epoch, self.best, self.options.patience)

    @property
    def position(self) -> float:
        """How many epochs are trained, the one under way as a fraction."""
        return self.epoch + (self.batches_done / self.batches_per_epoch if self.batches_per_epoch else 0.0)

    def epochs_at(self, step: int) -> float:
        """Return how many epochs were trained after `step` steps, the one under way as a fraction.

        Between the epochs' ends, whose steps are known, steps count alike; so they do beyond the last one.
        """
        known = [(0, 0.0), *((row.step, float(row.epoch)) for row in self.history)]
        if self.position > self.epoch and self.step > known[-1][0]:
            known.append((self.step, self.position))
        for (first, before), (last, after) in pairwise(known):
            if step <= last:
                return before + (after - before) * (step - first) / max(1, last - first)
        return known[-1][1]


def story_of(state: TrainState, options: Options) -> Story:
    """Return how the run of a state went so far; nothing is copied, so use it before the state changes."""
    return Story(
        options=options,
        epoch=state.epoch,
        step=state.step,
        batches_done=state.unfinished.batches_done,
        batches_per_epoch=state.unfinished.batches_per_epoch,
        history=state.history,
        times=state.times,
        validations=state.validations,
        sessions=state.sessions,
        lost_epochs=state.lost_epochs,
        last_validation=state.last_validation,
        training_seconds=state.training_seconds,
        num_parameters=sum(p.numel() for network in state.networks.values() for p in network.parameters()),
    )


def story_in(payload: Mapping[str, Any], options: Options) -> Story:
    """Return how the run went that a checkpoint's payload is of."""
    under_way = payload["unfinished_epoch"]
    return Story(
        options=options,
        epoch=payload["epoch"],
        step=payload["step"],
        batches_done=under_way["batches_done"],
        batches_per_epoch=under_way["batches_per_epoch"],
        history=history_in(payload),
        times=times_in(payload),
        validations=[StepMetrics(**row) for row in payload["validations"]],
        sessions=sessions_in(payload),
        lost_epochs=payload["lost_epochs"],
        last_validation=last_validation_in(payload),
        training_seconds=payload["training_seconds"],
        num_parameters=payload.get("metadata", {}).get("num_parameters"),
    )


def interrupted_story(story: Story, why: str) -> Story:
    """Return the same story, told by a process that was ended by `why` before the target was reached."""
    return replace(story, interrupted=why)


def last_whole_epoch(position: float) -> int:
    """Return the last tick of an axis that reaches to `position` epochs: a whole number of at least 1.

    >>> last_whole_epoch(0.0), last_whole_epoch(2.5)
    (1, 3)
    """
    return max(1, math.ceil(position))
