"""Passes over a whole part, which processes share out batch by batch: validation, and a task's last pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from training.checkpoints.history import History
from training.checkpoints.rows import StepMetrics
from training.data.batches import TrainingBatches, ValidationBatches
from training.data.reading import read
from training.data.shares import one_batch_each
from training.state.train_state import Observed, TrainState
from training.tasks.task import Task
from utils.interruption import StopRequest
from utils.progress import progress
from utils.ranks import Ranks, stop_asked


def validate(
    state: TrainState, task: Task, batches: ValidationBatches, label: str, *, ranks: Ranks, stop: StopRequest
) -> StepMetrics | None:
    """Score the validation part and keep what the task keeps of it; None if a stop was asked for before its end.

    All processes have what one would have at this batch size, and the first of them decides on the figures.
    """
    for network in state.networks.values():
        network.eval()
    seen: list[Observed] = []
    with progress(label, batches.num_batches) as bar:
        for each in read(batches.steps(one_batch_each(ranks), stop), ranks):
            own = [task.validation_step(state, batch.to(task.device)) for batch in each.batches]
            for of_process in ranks.gather(own):
                seen += of_process
            bar.advance(len(each.labels), batches=each.num_batches)
            if stop_asked(ranks, stop):
                return None
    joined = {name: torch.cat([observed[name] for observed in seen]) for name in seen[0]}
    figures, kept = ranks.broadcast(lambda: task.validated(state.step, joined))
    state.kept.update(kept)
    return StepMetrics(state.epoch, state.step, figures)


def pass_once_more(
    state: TrainState, task: Task, batches: TrainingBatches, completed: History, *, ranks: Ranks, stop: StopRequest
) -> Mapping[str, Any] | None:
    """Return what the task keeps of its last pass, nothing where there is none; None if a stop was asked for.

    It comes before the epoch is completed, so that a stop within it is one within the epoch: what goes on there begins
    the pass anew, and a checkpoint of the last epoch always has what it made.
    """
    last_pass = task.last_pass(state, completed)
    if last_pass is None:
        return {}
    with progress(last_pass.label, batches.num_batches_per_epoch) as bar:
        done = 0
        for each in read(batches.steps(completed.epoch + 1, 0, one_batch_each(ranks), stop), ranks):
            own = [last_pass.take(batch.to(task.device), done + number) for number, batch in each.numbered()]
            for of_process in ranks.gather(own):
                for part in of_process:
                    last_pass.add(part)
            done += each.num_batches
            bar.advance(len(each.labels), batches=each.num_batches)
            if stop_asked(ranks, stop):
                return None
    return last_pass.kept()
