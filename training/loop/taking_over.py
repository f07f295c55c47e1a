"""One of several processes takes over from the first one, once that is dead: the run folder, to save the state in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.runs.survey import survey_folder
from training.saving.background_saving import DirectSaver, Saver
from training.saving.commit import Committer, Outcome
from training.state.train_state import TrainState
from utils.errors import UserError
from utils.ranks import Ranks

_LOCK_IS_FREE_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class TakenOver:
    """What a process saves with after the one that did is dead: the run folder is its own now.

    `newest` is the checkpoint there that is furthest in training, and `has_state` says that it is as far as the state.
    """

    saver: Saver[Outcome]
    newest: Path | None
    has_state: bool


def taken_over(
    ranks: Ranks, hold: Callable[[], object], folder: Path, committer: Committer, state: TrainState
) -> TakenOver:
    """Make the run folder that of this process; `hold` takes its lock.

    Raises UserError where another process holds it, as where the first one only seems to be dead.
    """
    ranks.fence_first()
    until = time.monotonic() + _LOCK_IS_FREE_WITHIN_S
    while True:
        try:
            hold()
            break
        except UserError:  # a process that dies gives its locks back after its connections
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK_EVERY_S)
    newest = survey_folder(folder).latest
    is_own = newest is not None and newest.run_id == state.history.lineage[-1][0]
    has_state = newest is not None and is_own and newest.position >= (state.step, state.epoch)
    return TakenOver(DirectSaver(committer.commit), newest.path if newest else None, has_state)
