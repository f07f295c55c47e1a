"""Takes back a step that ended half-way, as for want of memory, so that what was trained before it can be saved."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from training.saving.background_saving import tensors_that_steps_change
from training.state.random_states import random_states, restore_random_states
from training.state.train_state import TrainState


class StepUndo:
    """What a step may change before its last update, as it was before: buffers, schedules, random states.

    `optimizers` are in the order in which they step. What the last one changes is not kept, and what those before it
    change only if it `keeps_updates`: that takes the memory of their parameters and moments once more, and the time to
    copy them. What is not kept is seen to have changed by torch's count of changes. A schedule and the rates that it
    gives are kept anyway, since they go on where --precision fp16 skips an update.
    """

    @classmethod
    def of(cls, state: TrainState, phases: Mapping[str, str], *, is_kept: bool) -> StepUndo:
        """Return that of a training whose optimizers, each with its schedule, step in the order of `phases`."""
        return cls(
            list(state.networks.values()),
            [state.optimizers[phase] for phase in phases],
            [state.schedulers[schedule] for schedule in phases.values()],
            keeps_updates=is_kept,
        )

    def __init__(
        self,
        networks: Sequence[nn.Module],
        optimizers: Sequence[Optimizer],
        schedules: Sequence[LRScheduler] = (),
        *,
        keeps_updates: bool = False,
    ) -> None:
        self._networks, self._optimizers = list(networks), list(optimizers)
        self._buffers = [buffer for network in self._networks for buffer in network.buffers()]
        self._kept = [torch.empty_like(buffer) for buffer in self._buffers]
        self._schedules = list(schedules)
        self._of_schedules: list[dict[str, Any]] = []
        self._settings: list[dict[str, Any]] = []
        self._random_states: dict[str, Any] = {}
        self._updates = [_Update(optimizer) for optimizer in self._optimizers[:-1]] if keeps_updates else []
        self._changes_before: int | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Keep what the block changes first; an exception leaves the step to be undone."""
        _copy(self._buffers, self._kept)
        for update in self._updates:
            update.is_begun = False
        self._of_schedules = [copy.deepcopy(schedule.state_dict()) for schedule in self._schedules]
        self._settings = [_settings_of(group) for group in self._groups()]
        self._random_states = random_states()
        self._changes_before = self._num_changes()
        yield
        self._changes_before = None

    def undo(self) -> bool:
        """Make the state that of before the step under way, if there is one; return whether that is possible.

        It is not once an optimizer that is not kept has begun to change parameters. Gradients are given up, and with
        them their memory.
        """
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        if self._changes_before is None:
            return True
        if self._changes_before != self._num_changes():
            return False
        _copy(self._kept, self._buffers)
        restore_random_states(self._random_states)
        for schedule, kept in zip(self._schedules, self._of_schedules, strict=True):
            schedule.load_state_dict(kept)
        for update in self._updates:
            update.take_back()
        for group, settings in zip(self._groups(), self._settings, strict=True):
            group.update(settings)
        self._changes_before = None
        return True

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _num_changes(self) -> int:
        kept = {id(tensor) for update in self._updates for tensor in update.changed()}
        tensors = tensors_that_steps_change(self._networks, self._optimizers)
        return sum(tensor._version for tensor in tensors if id(tensor) not in kept)


def _settings_of(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


class _Update:
    """What one optimizer changes, as it was before it began to: its parameters and their moments."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.is_begun = False
        self._optimizer = optimizer
        self._kept: list[Tensor] = []
        self._with_moments: set[Tensor] = set()
        optimizer.register_step_pre_hook(self._keep)

    def changed(self) -> list[Tensor]:
        """Return all that its steps change."""
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        return [*parameters, *tensors_that_steps_change((), [self._optimizer])]

    def take_back(self) -> None:
        """Make it all what it was, if an update was begun."""
        if not self.is_begun:
            return
        for parameter in self._optimizer.state.keys() - self._with_moments:
            del self._optimizer.state[parameter]
        _copy(self._kept, self.changed())
        self.is_begun = False

    def _keep(self, *_: object) -> None:
        changed = self.changed()
        if len(changed) != len(self._kept):
            self._kept = [torch.empty_like(tensor) for tensor in changed]
        self._with_moments = set(self._optimizer.state)
        _copy(changed, self._kept)
        self.is_begun = True


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    if sources:
        torch._foreach_copy_(targets, sources)
