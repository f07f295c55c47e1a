"""The learning rate as a function of the step and, where it waits for validation, of the history."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR

from training.checkpoints.history import History, plateau_reductions
from training.settings.options import Options

PLATEAU = "plateau"


def learning_rate_factor(scheduler: str, warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """Return the function from steps done to the share of --lr that the next step uses, between 0 and 1.

    The rate rises linearly over the warm-up; then it is constant, or falls linearly or along half a cosine to 0 at
    `total_steps`. For a plateau it is constant here: what its history takes off is taken off --lr, see `base_rate`.

    >>> factor = learning_rate_factor("linear", warmup_steps=2, total_steps=6)
    >>> [factor(step) for step in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if scheduler in ("constant", PLATEAU):
            return 1.0
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return 1.0 - done if scheduler == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))

    return factor


def planned_steps(
    num_epochs: int, batches_per_epoch: int, history: History | None = None, *, batches_per_step: int = 1
) -> int:
    """Return how many steps a run will have made at its end, those of the `history` that it goes on from included.

    An epoch under way keeps its length, even where the data or the batch size of the epochs after it are others. The
    last step of an epoch may have fewer batches.

    >>> planned_steps(num_epochs=4, batches_per_epoch=10), planned_steps(4, 10, batches_per_step=4)
    (40, 12)
    """
    steps_per_epoch = -(-batches_per_epoch // batches_per_step)
    if history is None:
        return num_epochs * steps_per_epoch
    step, epoch, under_way = history.step, history.epoch, history.under_way
    if under_way.batches_done:
        step += -(-(under_way.batches_per_epoch - under_way.batches_done) // batches_per_step)
        epoch += 1
    return step + (num_epochs - epoch) * steps_per_epoch


def make_schedule(optimizer: torch.optim.Optimizer, options: Options, total_steps: int) -> LambdaLR:
    """Return the schedule that the options ask for."""
    return LambdaLR(optimizer, learning_rate_factor(options.scheduler, options.warmup_steps, total_steps))


def base_rate(options: Options, history: History) -> float:
    """Return the learning rate before warm-up and schedule: --lr, for a plateau lowered as often as the history says.

    As torch's ReduceLROnPlateau, but by the best epoch's measure, without threshold, and with no state of its own.
    """
    if options.scheduler != PLATEAU:
        return options.lr
    reductions = plateau_reductions(history.epochs, history.figures, options.plateau_patience)
    return float(options.lr * options.plateau_factor**reductions)


def apply_rates(optimizer: torch.optim.Optimizer, schedule: LambdaLR, options: Options, history: History) -> None:
    """Put the learning rate and weight decay that options and history give into an optimizer.

    For one that was restored, and after each epoch; where nothing changed this changes no bit.
    """
    rate = base_rate(options, history)
    schedule.base_lrs = [rate] * len(optimizer.param_groups)
    factor = schedule.lr_lambdas[0](schedule.last_epoch)
    for group in optimizer.param_groups:
        group["initial_lr"] = rate
        group["lr"] = rate * factor
        group["weight_decay"] = options.weight_decay
