"""The learning rate by hand, and what happens to it when a resumed run asks for another one."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.comparing import differences
from tests.records import metrics
from tests.small_state import OPTIONS, seed_everything, small_state, train
from training.checkpoints.history import History, UnfinishedEpoch
from training.checkpoints.rows import EpochMetrics
from training.planning.learning_rate import base_rate, factor_of, learning_rate_factor, planned_steps
from training.settings.tasks import DETECTION
from training.state.train_state import TrainState
from training.tasks.schedule import apply_rates, make_schedule

HALF_COSINE = [1.0, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2, 0.0]


def history(rows: list[EpochMetrics], step: int = 0, epoch: int = 0, batches_done: int = 0) -> History:
    under_way = UnfinishedEpoch(10, batches_done)
    return History(DETECTION.figures, under_way, (("run-a", 0),), epoch=epoch, step=step, epochs=rows)


@pytest.mark.parametrize(
    ("scheduler", "warmup_steps", "total_steps", "expected", "why"),
    [
        ("constant", 0, 4, [1, 1, 1, 1, 1], "no warm-up: the full rate from the first step on"),
        ("constant", 4, 4, [0.25, 0.5, 0.75, 1, 1], "the warm-up never starts at 0: that step would be lost"),
        ("linear", 0, 4, [1, 0.75, 0.5, 0.25, 0], "falls to 0 after the last step"),
        ("linear", 2, 6, [0.5, 1, 1, 0.75, 0.5, 0.25, 0], "falls over the steps that the warm-up leaves"),
        ("linear", 0, 2, [1, 0.5, 0, 0, 0], "stays at 0 past the end and never turns negative"),
        ("cosine", 0, 4, HALF_COSINE, "half a cosine: (1 + cos(pi t)) / 2"),
        ("cosine", 1, 5, [1, *HALF_COSINE], "half a cosine after the warm-up"),
        ("plateau", 2, 4, [0.5, 1, 1, 1, 1], "constant but for the history"),
        ("cosine", 5, 3, [0.2, 0.4, 0.6, 0.8, 1, 1, 0], "a warm-up longer than the training is no division by 0"),
    ],
)
def test_the_share_of_the_learning_rate(
    scheduler: str, warmup_steps: int, total_steps: int, expected: list[float], why: str
) -> None:
    factor = learning_rate_factor(scheduler, warmup_steps, total_steps)
    assert [factor(step) for step in range(len(expected))] == pytest.approx(expected, abs=1e-12), why


@pytest.mark.parametrize(("scheduler", "half_way"), [("cosine", 0.5), ("linear", 0.5)])
def test_a_falling_rate_ends_at_lr_min(scheduler: str, half_way: float) -> None:
    """AASIST's recipe: a cosine from 1e-4 to 5e-6 (clovaai/aasist config/AASIST.conf, utils.py cosine_annealing)."""
    options = OPTIONS.replaced(scheduler=scheduler, warmup_steps=0, lr=1e-4, lr_min=5e-6)
    rates = [options.lr * factor_of(options, 8)(step) for step in range(10)]
    assert rates[0] == 1e-4
    assert rates[4] == pytest.approx(5e-6 + (1e-4 - 5e-6) * half_way)
    assert rates[8:] == pytest.approx([5e-6, 5e-6])
    if scheduler == "cosine":
        theirs = [5e-6 + (1e-4 - 5e-6) * 0.5 * (1 + math.cos(step / 8 * math.pi)) for step in range(9)]
        assert rates[:9] == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [("constant", 1.0), ("linear", 1 - 10 / 40), ("cosine", 0.5 * (1 + math.cos(math.pi * 10 / 40)))],
)
def test_more_epochs_stretch_the_schedule_from_where_it_stands(scheduler: str, expected: float) -> None:
    """10 of 20 steps done, then 40 are asked for: the next step has the rate that 40 steps give at step 10."""
    parameters = [nn.Parameter(torch.zeros(1))]
    options = OPTIONS.replaced(scheduler=scheduler, warmup_steps=0, lr=0.5)
    first = torch.optim.Adam(parameters, lr=options.lr)
    schedule = make_schedule(first, options, 20)
    for _ in range(10):
        first.step()
        schedule.step()
    extended = torch.optim.Adam(parameters, lr=options.lr)
    longer = make_schedule(extended, options, 40)
    extended.load_state_dict(first.state_dict())
    longer.load_state_dict(schedule.state_dict())
    apply_rates(extended, longer, options, history([]))
    assert extended.param_groups[0]["lr"] == pytest.approx(0.5 * expected)
    extended.step()
    longer.step()
    assert extended.param_groups[0]["lr"] == pytest.approx(0.5 * learning_rate_factor(scheduler, 0, 40)(11))


@pytest.mark.parametrize(
    ("step", "epoch", "batches_done", "batches_per_epoch_now", "expected", "why"),
    [
        (20, 2, 0, 10, 40, "between epochs, nothing changed"),
        (24, 2, 4, 10, 40, "mid-epoch"),
        (30, 2, 10, 10, 40, "trained, not validated"),
        (20, 2, 0, 5, 30, "between epochs, then twice the batch size: 20 done and 2 epochs of 5"),
        (30, 2, 10, 5, 35, "trained, not validated, then twice the batch size: 30 done and 1 epoch of 5"),
        (30, 3, 0, 5, 35, "the same once it is validated: a stop in between must not change the schedule"),
        (20, 2, 0, 25, 70, "between epochs, more data"),
    ],
)
def test_the_planned_steps_do_not_depend_on_where_a_run_was_stopped(
    step: int, epoch: int, batches_done: int, batches_per_epoch_now: int, expected: int, why: str
) -> None:
    past = history([], step=step, epoch=epoch, batches_done=batches_done)
    assert planned_steps(4, batches_per_epoch_now, past) == expected, why


@pytest.mark.parametrize(
    ("step", "epoch", "batches_done", "expected", "why"),
    [
        (0, 0, 0, 12, "4 epochs of 3 steps: 4, 4 and 2 batches"),
        (7, 2, 4, 12, "one step into the third epoch: two are left of it"),
        (9, 2, 10, 12, "trained, not validated"),
    ],
)
def test_the_last_step_of_an_epoch_may_have_fewer_batches(
    step: int, epoch: int, batches_done: int, expected: int, why: str
) -> None:
    past = history([], step=step, epoch=epoch, batches_done=batches_done) if step else None
    assert planned_steps(4, 10, past, batches_per_step=4) == expected, why


def restored(lr: float, weight_decay: float) -> tuple[TrainState, TrainState]:
    """Return a state that trained 7 steps, and one restored from it under the given rates."""
    state = small_state()
    seed_everything(3)
    train(state, 7)
    other = small_state()
    other.restore(copy.deepcopy(state.to_payload()), Path("a.pth"))  # its tensors are the live ones
    options = OPTIONS.replaced(lr=lr, weight_decay=weight_decay)
    apply_rates(other.optimizers["optimizer"], other.schedulers["scheduler"], options, other.history)  # type: ignore[arg-type]
    return state, other


def test_unchanged_rates_change_no_bit() -> None:
    state, other = restored(OPTIONS.lr, OPTIONS.weight_decay)
    assert differences(other.to_payload(), state.to_payload()) == []
    for one in (state, other):
        seed_everything(4)
        train(one, 5)
    assert differences(other.to_payload(), state.to_payload()) == []


def test_a_changed_learning_rate_counts_from_the_next_step_on() -> None:
    state, other = restored(OPTIONS.lr / 10, OPTIONS.weight_decay)
    assert other.learning_rate == pytest.approx(state.learning_rate / 10)
    for one in (state, other):
        train(one, 3)
    assert other.learning_rate == pytest.approx(state.learning_rate / 10)
    assert state.learning_rate < OPTIONS.lr  # the schedule went on


def test_a_plateau_multiplies_the_rate_once_for_each_wait() -> None:
    options = OPTIONS.replaced(scheduler="plateau", lr=0.5, plateau_patience=2, plateau_factor=0.1)
    rows = [metrics(epoch) for epoch in range(1, 6)]  # the first is the best
    assert [base_rate(options, history(rows[:epochs])) for epochs in range(6)] == pytest.approx(
        [0.5, 0.5, 0.5, 0.5, 0.05, 0.05]
    )
    assert base_rate(options.replaced(lr_min=0.2), history(rows)) == 0.2, "--lr_min is where it ends"
    assert base_rate(options.replaced(scheduler="cosine"), history(rows)) == 0.5


def test_a_plateau_counts_from_the_next_step_on_and_keeps_the_warm_up() -> None:
    options = OPTIONS.replaced(scheduler="plateau", lr=0.5, warmup_steps=4, plateau_patience=0)
    state = small_state(options)
    train(state, 1)
    past = history([metrics(1), metrics(2)])
    apply_rates(state.optimizers["optimizer"], state.schedulers["scheduler"], options, past)  # type: ignore[arg-type]
    assert state.learning_rate == pytest.approx(0.25 * 2 / 4)
    train(state, 1)
    assert state.learning_rate == pytest.approx(0.25 * 3 / 4)


def test_a_changed_weight_decay_is_applied_and_nothing_else() -> None:
    state, other = restored(OPTIONS.lr, 0.25)
    assert other.optimizers["optimizer"].param_groups[0]["weight_decay"] == 0.25
    assert other.learning_rate == state.learning_rate
    changed = differences(other.to_payload(), state.to_payload())
    assert [place.split(":")[0] for place in changed] == ["/optimizer_state_dict/param_groups[0]/weight_decay"]
