"""What will be done and why: decided before anything is created, loaded or written."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from training.checkpoints.examined import WeightsFile
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.verified_file import VerifiedFile
from training.runs.config_file import RunConfig
from training.runs.directory import RunDirectory
from training.settings.changes import Change
from training.settings.options import Options


class Start(enum.Enum):
    """How a run starts."""

    FRESH = "fresh"  # random or pretrained weights, epoch 1
    FROM_WEIGHTS = "from weights"  # the weights of a file, new optimizer, epoch 1
    RESUME = "resume"  # the whole state of a checkpoint
    REACHED = "reached"  # the checkpoint has all the epochs asked for, or --patience is at an end: nothing to do


@dataclass(frozen=True)
class Plan:
    """What will be done and why; printed before anything is created, loaded or written.

    `source` is the file to start from and `run` where training writes; with `is_new_version` that is a folder that does
    not exist yet. `seen` are the names in the run folder when this was decided, `move_aside` those that must leave it
    first, and `bring_along` says that source and its best so far come from another folder. `config` is what config.yaml
    in the run folder will hold. `undone` is what a killed process left to do although nothing is left to train, and
    `untrained` are settings that were asked for then and that the checkpoint was not trained with. `was_at` is where
    the run folder was when source was written in it, "" where it is there still or where that is not known.
    `takes_over` says that the run folder and its logs are those of a start that ended before anything was saved.
    `opened` is the file of `source`, verified, to be loaded from. `accepts_changed_audio` says that the rest of an
    epoch may be trained on other audio than its beginning. `num_ranks` processes share the batches of a step.
    """

    start: Start
    reason: str
    options: Options
    run: RunDirectory
    source: CheckpointRecord | WeightsFile | None = None
    seen: tuple[str, ...] = ()
    move_aside: tuple[str, ...] = ()
    bring_along: bool = False
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    is_new_version: bool = False
    config: RunConfig | None = None
    undone: tuple[str, ...] = ()
    untrained: tuple[Change, ...] = ()
    opened: VerifiedFile | None = field(default=None, repr=False, compare=False)
    was_at: str = ""
    takes_over: bool = False
    accepts_changed_audio: bool = False
    num_ranks: int = 1

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what only the process has that opened it: the first one hands out what it read."""
        return {**self.__dict__, "opened": None}

    @property
    def begins_branch(self) -> bool:
        """Whether training goes on under a new run id: the past of its checkpoint may have another future elsewhere."""
        return bool(self.move_aside or self.bring_along or self.was_at)

    @property
    def continues_here(self) -> bool:
        """Whether the run in this folder goes on, so that its logs are its own."""
        return self.start is Start.RESUME and not self.bring_along

    @property
    def checkpoint(self) -> CheckpointRecord | None:
        """The checkpoint whose training goes on, if one does."""
        resumed = self.start in (Start.RESUME, Start.REACHED) and isinstance(self.source, CheckpointRecord)
        return self.source if resumed and isinstance(self.source, CheckpointRecord) else None
