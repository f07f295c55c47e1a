"""What is told of a run, whoever tells it: its history and what stands beside that, from a state or a payload alike."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoints.history import History, is_stalled
from training.checkpoints.record import CheckpointRecord
from training.settings.options import Options
from training.state.train_state import TrainState
from training.tasks.task import AudioExample, Exhibit, Task


class Moment(enum.Enum):
    """What has just happened in a run, so that something is to be told."""

    BEGUN = "this process goes on from the history, and trains from here"
    STEP_VALIDATED = "a validation within an epoch has ended"
    SAVED = "a checkpoint is on disk"
    EPOCH_COMPLETED = "an epoch has ended, and its checkpoint is being saved"
    EPOCH_DRAWN = "what is drawn after an epoch is there"
    COMPLETED = "the last epoch is saved"
    ENDED = "this process trains no more"


@dataclass(frozen=True)
class Story:
    """How a run went so far; nothing in it is copied, so it is told before the state changes.

    `saved` is the record of the newest checkpoint on disk. `num_parameters` is None where it is unknown. `interrupted`
    says in words why the process that tells trains no more although the target is not reached, "" where it trains on
    or has reached it. `checkpoints` and `audio_examples` give what is shown of a completed run, and `asides` what else
    is to be known of its saves: how long they take, and how its mirror stands.
    """

    options: Options
    history: History
    exhibits: Sequence[Exhibit] = ()
    num_parameters: int | None = None
    interrupted: str = ""
    saved: CheckpointRecord | None = None
    moment: Moment = Moment.ENDED
    checkpoints: Callable[[], Sequence[Path]] = tuple
    audio_examples: Callable[[], Sequence[AudioExample]] = tuple
    asides: Callable[[], Sequence[str]] = tuple

    @property
    def num_drawn(self) -> int:
        """Of how many epochs all that is to be drawn is there."""
        return len(self.history.epochs) - (self.moment is Moment.EPOCH_COMPLETED)

    @property
    def is_finished(self) -> bool:
        """Whether all epochs asked for are completed."""
        return self.history.epoch >= self.options.num_epochs

    @property
    def is_stalled(self) -> bool:
        """Whether --patience ended the run before its last epoch."""
        half_done = self.history.under_way.is_half_done
        return not self.is_finished and not half_done and is_stalled(self.history, self.options.patience)


def story_of(state: TrainState, task: Task) -> Story:
    """Return how the run of a state went so far."""
    return Story(task.options, state.history, task.exhibits(state.kept), state.num_parameters)


def story_in(payload: Mapping[str, Any], task: Task) -> Story:
    """Return how the run went that a checkpoint's payload is of."""
    history = History.in_payload(payload, task.description.figures)
    parameters = payload.get("metadata", {}).get("num_parameters")
    return Story(task.options, history, task.exhibits(payload), parameters)
