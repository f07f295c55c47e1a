"""Takes back a step that ended half-way, as for want of memory, so that what was trained before it can be saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.saving.background_saving import tensors_that_steps_change


class StepUndo:
    """What a forward pass may change, as it was before the step under way: the buffers of the networks.

    Parameters and the state of optimizers are not kept; that nothing has changed them is seen by torch's count of
    changes.
    """

    def __init__(self, networks: Iterable[nn.Module], optimizers: Iterable[Optimizer]) -> None:
        self._networks, self._optimizers = list(networks), list(optimizers)
        self._buffers = [buffer for network in self._networks for buffer in network.buffers()]
        self._kept = [torch.empty_like(buffer) for buffer in self._buffers]
        self._changes_before: int | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Keep what the block changes first; an exception leaves the step to be undone."""
        _copy(self._buffers, self._kept)
        self._changes_before = self._num_changes()
        yield
        self._changes_before = None

    def undo(self) -> bool:
        """Make the state that of before the step under way, if there is one; return whether that is possible.

        It is not once an optimizer has begun to change parameters. Gradients are given up, and with them their memory.
        """
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        if self._changes_before is None:
            return True
        if self._changes_before != self._num_changes():
            return False
        _copy(self._kept, self._buffers)
        self._changes_before = None
        return True

    def _num_changes(self) -> int:
        return sum(tensor._version for tensor in tensors_that_steps_change(self._networks, self._optimizers))


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    if sources:
        torch._foreach_copy_(targets, sources)
