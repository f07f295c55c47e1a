"""A step that ended between its updates is taken back, to the bits of before it, where the first updates are kept."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from tests.comparing import differences
from training.loop.undoing import StepUndo


class Trained:
    """Two networks that step in turn, the second of which has batch norm."""

    def __init__(self, *, keeps_updates: bool) -> None:
        torch.manual_seed(5)
        self.networks = [nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))]
        self.optimizers = [torch.optim.AdamW(network.parameters(), 0.1) for network in self.networks]
        self.schedules = [StepLR(optimizer, 1, 0.5) for optimizer in self.optimizers]
        self.undo = StepUndo(self.networks, self.optimizers, self.schedules, keeps_updates=keeps_updates)

    def step(self, *, ends_after: int = 2, skips: bool = False) -> None:
        """Take a step; raise KeyboardInterrupt after so many updates if there are two. `skips` leaves the first out."""
        with self.undo.step():
            for number, (optimizer, schedule) in enumerate(zip(self.optimizers, self.schedules, strict=True)):
                if number == ends_after:
                    raise KeyboardInterrupt
                self.networks[1](self.networks[0](torch.randn(6, 3))).square().sum().backward()
                if number or not skips:
                    optimizer.step()
                schedule.step()
                for each in self.optimizers:
                    each.zero_grad()

    @property
    def content(self) -> dict[str, Any]:
        held: tuple[Any, ...] = (*self.networks, *self.optimizers, *self.schedules)
        return {"random": torch.get_rng_state(), **{str(n): dict(part.state_dict()) for n, part in enumerate(held)}}


@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize("ends_after", [0, 1])
def test_it_is_taken_back_to_the_bits_of_before_it(steps_before: int, ends_after: int) -> None:
    trained = Trained(keeps_updates=True)
    for _ in range(steps_before):
        trained.step()
    before = copy.deepcopy(trained.content)
    with pytest.raises(KeyboardInterrupt):
        trained.step(ends_after=ends_after)
    assert ends_after == 0 or differences(trained.content, before)
    assert trained.undo.undo()
    assert differences(trained.content, before) == []
    trained.step()


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("keeps_updates", [False, True])
def test_a_step_whose_first_update_was_skipped_is_taken_back_with_its_schedule(keeps_updates: bool) -> None:
    trained = Trained(keeps_updates=keeps_updates)
    before = copy.deepcopy(trained.content)
    with pytest.raises(KeyboardInterrupt):
        trained.step(ends_after=1, skips=True)
    assert differences(trained.content, before)
    assert trained.undo.undo()
    assert differences(trained.content, before) == []


def test_it_is_not_once_the_last_update_or_one_that_is_not_kept_was_made() -> None:
    trained = Trained(keeps_updates=False)
    with pytest.raises(KeyboardInterrupt):
        trained.step(ends_after=1)
    assert not trained.undo.undo()
    trained = Trained(keeps_updates=True)
    with pytest.raises(ZeroDivisionError), trained.undo.step():
        trained.optimizers[1].param_groups[0]["params"][0].grad = torch.ones(4, 2)
        trained.optimizers[1].step()
        raise ZeroDivisionError
    assert not trained.undo.undo()


def test_what_was_done_is_not_taken_back() -> None:
    trained = Trained(keeps_updates=True)
    trained.step()
    before = copy.deepcopy(trained.content)
    assert trained.undo.undo()
    assert differences(trained.content, before) == []
