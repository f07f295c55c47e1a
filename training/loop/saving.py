"""What a session saves with: the run folder under its lock, the saver of the state, and when to save by time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from training.checkpoints.history import History
from training.loop.preparation import make_run_folder, prepare_folder
from training.planning.plan import Plan
from training.planning.save_cost import COST_KEY, SaveCost
from training.runs.config_file import write_config
from training.runs.lock import RunLock
from training.runs.retention import RetentionPolicy
from training.runs.trained_names import TrainedNames, write_trained_names
from training.saving.background_saving import (
    BackgroundSaver,
    DirectSaver,
    Saver,
    fence_before_updates,
    tensors_that_steps_change,
)
from training.saving.commit import Committer, Outcome
from training.saving.save_times import SaveTimes
from training.saving.store import CheckpointStore
from training.state.train_state import TrainState
from utils.console import say
from utils.errors import UserError
from utils.interruption import StopRequest
from utils.ranks import Ranks


@contextmanager
def prepared(
    plan: Plan,
    store: CheckpointStore,
    lock: RunLock,
    payload: Mapping[str, Any] | None,
    history: History,
    *,
    names: TrainedNames | None,
    ranks: Ranks,
) -> Iterator[ExitStack]:
    """Hold the run folder's lock, the folder being as the plan wants it; yield what else is held as long.

    The first process does that for all. Raises UserError where the disk refuses before training has begun.
    """
    with ExitStack() as held:
        if not ranks.is_first:
            yield held
            return
        try:
            make_run_folder(plan)
            held.enter_context(lock)
            prepare_folder(plan, store, payload)
            del payload  # as large as the state, and not needed while training
            write_beside_checkpoints(plan, history, names)
        except OSError as error:
            raise cannot_write(plan, error) from error
        yield held


@contextmanager
def saving(
    plan: Plan,
    store: CheckpointStore,
    state: TrainState,
    device: torch.device,
    names: TrainedNames | None,
    *,
    stop: StopRequest,
    ranks: Ranks,
) -> Iterator[tuple[Saver[Outcome], Committer]]:
    """Yield what saves the state, and what makes each save part of the run; of several processes the first saves.

    On the way out the save in flight ends first; a second Ctrl-C gives it up.
    """
    networks, optimizers = state.networks.values(), state.optimizers.values()
    committer = Committer(
        store,
        RetentionPolicy.of(plan.options),
        plan.options.compress_after,
        on_new_folder=lambda: write_beside_checkpoints(plan, state.history, names),
    )
    saver: Saver[Outcome]
    if plan.options.sync_save or not ranks.is_first:
        saver = DirectSaver(committer.commit)
    else:
        pinned = device.type == "cuda"
        tensors = lambda: tensors_that_steps_change(networks, optimizers)  # noqa: E731
        saver = BackgroundSaver(committer.commit, tensors, pinned, stop)
    with fence_before_updates(saver.fence, optimizers):
        try:
            yield saver, committer
        except KeyboardInterrupt:
            saver.cancel()
            raise
        except BaseException:
            outcome = saver.close()
            if outcome and outcome.refused:
                say(f"[WARNING] {outcome.refused}.")
            raise
        saver.close()


def save_times(plan: Plan, state: TrainState) -> SaveTimes:
    """Return what says when to save by time: as --max_lost has it, never where nothing asks for saves."""
    options = plan.options
    known = SaveCost.from_dict(plan.checkpoint.metadata.get(COST_KEY)) if plan.checkpoint else None
    tensors = tensors_that_steps_change(state.networks.values(), state.optimizers.values())
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    is_off = options.max_lost is None and not options.save_interval
    return SaveTimes(options.max_lost, size, known, is_off=is_off)


def write_beside_checkpoints(plan: Plan, history: History, names: TrainedNames | None) -> None:
    """Write config.yaml and the names that are trained on into the run folder; raises OSError."""
    assert plan.config is not None
    write_config(plan.run.config, plan.config, plan.options, history)
    if names:
        write_trained_names(plan.run.folder, names)


def cannot_write(plan: Plan, error: OSError) -> UserError:
    """Return what is said of a folder that refuses before training has begun."""
    where = error.filename or plan.run.folder
    return UserError(
        f"{where} cannot be written ({error.strerror or error}), and nothing was trained: "
        "mend that, or start the program in another folder"
    )
