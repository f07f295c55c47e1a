"""Puts the learning rate of training/planning/learning_rate.py into torch's optimizers and schedules."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import LambdaLR

from training.checkpoints.history import History
from training.planning.learning_rate import base_rate, factor_of
from training.settings.options import Options


def make_schedule(optimizer: torch.optim.Optimizer, options: Options, total_steps: int) -> LambdaLR:
    """Return the schedule that the options ask for."""
    return LambdaLR(optimizer, factor_of(options, total_steps))


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
