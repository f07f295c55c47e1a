"""What the losses of --precision fp16 are multiplied with, so that small gradients are no zeros: torch's GradScaler.

    scaler.scale(loss).backward()                  # of each batch, on whatever process
    scaler.unscale_(optimizer)                     # the gradient of the whole step
    if not scaler.skips(optimizer, norm):          # `norm` of it, the same number in all processes
        optimizer.step()
    scaler.update()                                # once, after the last optimizer of the step

Gradients that overflow at one scale may fit at a smaller one: their update is skipped, and the scale is halved. It is
doubled after `GROWTH_INTERVAL` steps without that. All of it is in the state_dict, as plain numbers.
"""

from __future__ import annotations

import math

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer

INITIAL_SCALE = 65536.0
GROWTH_INTERVAL = 2000
"""Both as torch has them where nothing is said."""
LEAST_SCALE = 1.0
"""Gradients that overflow here do so for themselves, and not because of the scale."""


class LossScaler(GradScaler):
    """torch's own, whose decision to skip an update is made once for all processes; not `enabled` it does nothing."""

    def __init__(self, device: torch.device | None = None, *, enabled: bool = False) -> None:
        device = device or torch.device("cpu")
        super().__init__(device.type, INITIAL_SCALE, growth_interval=GROWTH_INTERVAL, enabled=enabled)
        self.scale(torch.zeros((), device=device))  # now, since a process may have no batch of the first step

    def skips(self, optimizer: Optimizer, norm: float) -> bool:
        """Return whether an update is skipped, since the norm of its unscaled gradients is not finite; remember that.

        The norm stands for what this process found in its gradients itself, so that all processes decide alike.
        """
        if not self.is_enabled():
            return False
        overflowed = not math.isfinite(norm)
        for found in self._found_inf_per_device(optimizer).values():
            found.fill_(float(overflowed))
        return overflowed

    @property
    def is_at_its_least(self) -> bool:
        """Whether there is no smaller scale to go on with."""
        return not self.is_enabled() or self.get_scale() * self.get_backoff_factor() < LEAST_SCALE
