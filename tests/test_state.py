"""State in, state out: what a payload holds brings back the same bits, and training goes on as if never stopped."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.comparing import differences
from tests.small_state import complete_epoch, seed_everything, small_state, train
from training.checkpoints.history import UnfinishedEpoch
from training.state.random_states import random_states, restore_random_states
from training.state.train_state import TrainState
from utils.errors import UserError

FILE = Path("a.pth")


def through_a_file(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the payload as a later process reads it."""
    file = io.BytesIO()
    torch.save(payload, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def trained_state(steps: int) -> TrainState:
    state = small_state()
    seed_everything(1)
    train(state, 10)
    complete_epoch(state)
    train(state, steps)
    state.history.training_seconds, state.history.seconds_in_epoch = 34.5, 2.25
    return state


@pytest.mark.parametrize("steps", [0, 1, 4, 10], ids=["between epochs", "first step", "mid-epoch", "not validated"])
def test_a_payload_restores_to_the_same_payload(steps: int) -> None:
    state = trained_state(steps)
    before = through_a_file(state.to_payload())
    other = small_state(weights_seed=99)
    seed_everything(2)
    other.restore(before, FILE)
    assert differences(through_a_file(other.to_payload()), before) == []


@pytest.mark.parametrize("steps", [0, 1, 4, 10], ids=["between epochs", "first step", "mid-epoch", "not validated"])
def test_training_on_after_a_restore_gives_the_bits_of_never_stopping(steps: int) -> None:
    state = trained_state(steps)
    saved = through_a_file(state.to_payload())
    train(state, 10 - steps)
    complete_epoch(state)
    train(state, 7)
    undisturbed = through_a_file(state.to_payload())

    resumed = small_state(weights_seed=99)
    seed_everything(2)
    resumed.restore(saved, FILE)
    train(resumed, 10 - steps)
    complete_epoch(resumed)
    train(resumed, 7)
    assert differences(through_a_file(resumed.to_payload()), undisturbed) == []


def test_restoring_twice_in_a_row_loses_no_bit() -> None:
    state = trained_state(3)
    first = through_a_file(state.to_payload())
    for _ in range(2):
        state = small_state(weights_seed=99)
        state.restore(first, FILE)
        assert differences(through_a_file(state.to_payload()), first) == []


def test_the_loss_and_scores_of_an_unfinished_epoch_go_on_after_a_restore() -> None:
    state = trained_state(4)
    resumed = small_state()
    resumed.restore(through_a_file(state.to_payload()), FILE)
    for one in (state, resumed):
        one.history.under_way.add(0.25, 2)
        one.observed.add({"scores": torch.tensor([1.0, -1.0]), "labels": torch.tensor([1, 0])})
    assert resumed.history.under_way.utterances == 22
    assert resumed.history.under_way.batches_done == 5
    assert resumed.history.under_way.mean_loss == state.history.under_way.mean_loss
    for name, values in state.observed.joined().items():
        assert torch.equal(resumed.observed.joined()[name], values)


def test_between_epochs_the_length_of_the_epoch_ahead_is_that_of_the_present_data() -> None:
    """A changed batch size is allowed there, so the length in the payload may be out of date."""
    resumed = small_state()
    resumed.history.under_way = UnfinishedEpoch(25)
    resumed.restore(through_a_file(trained_state(0).to_payload()), FILE)
    assert resumed.history.under_way.batches_per_epoch == 25


def test_inside_an_epoch_its_length_is_that_of_the_payload() -> None:
    resumed = small_state()
    resumed.history.under_way = UnfinishedEpoch(25)
    resumed.restore(through_a_file(trained_state(10).to_payload()), FILE)
    assert resumed.history.under_way.batches_per_epoch == 10
    assert resumed.history.under_way.is_trained


@pytest.mark.parametrize(
    "key",
    [
        "epoch",
        "step",
        "model_state_dict",
        "optimizer_state_dict",
        "scheduler_state_dict",
        "history",
        "times",
        "training_seconds",
        "seconds_in_epoch",
        "lineage",
        "unfinished_epoch",
        "random_states",
    ],
)
def test_a_missing_key_is_never_replaced_by_a_default(key: str) -> None:
    payload = through_a_file(trained_state(2).to_payload())
    del payload[key]
    with pytest.raises(KeyError, match=key):
        small_state().restore(payload, FILE)


def test_weights_that_do_not_fit_are_refused() -> None:
    payload = through_a_file(trained_state(2).to_payload())
    payload["model_state_dict"]["0.weight"] = torch.zeros(9, 9)
    with pytest.raises(UserError, match="1 layers of another size"):
        small_state().restore(payload, FILE)


def test_every_network_optimizer_and_schedule_is_in_the_payload_under_its_name() -> None:
    """Parts that belong together, such as a generator and its discriminators, cannot be saved apart."""
    state, other = small_state(), small_state()
    state.networks["critic"] = other.networks["model"]
    state.optimizers["critic_optimizer"] = other.optimizers["optimizer"]
    named = [key for key in state.to_payload() if key.endswith("_state_dict")]
    assert named == [
        "model_state_dict",
        "critic_state_dict",
        "optimizer_state_dict",
        "critic_optimizer_state_dict",
        "scheduler_state_dict",
    ]


def test_the_best_so_far_is_a_query_over_the_history() -> None:
    assert small_state().to_payload()["best_val_eer"] is None
    state = small_state()
    for val_eer in (7.0, 3.0, 4.0):
        complete_epoch(state, val_eer)
    assert state.history.best == state.history.epochs[1]
    payload = state.to_payload()
    assert (payload["best_val_eer"], payload["val_eer"], payload["epoch"]) == (3.0, 4.0, 3)


def draws() -> list[float]:
    """Return a number from each global generator; NumPy's normal draws come in pairs, so half a pair is kept."""
    return [random.random(), random.gauss(0, 1), float(np.random.standard_normal()), float(torch.randn(()))]


def test_every_global_random_generator_goes_on_where_it_was() -> None:
    seed_everything(5)
    draws()  # an odd number of normal draws: the cached second half belongs to the state
    states = through_a_file({"random_states": random_states()})["random_states"]
    expected = [draws() for _ in range(3)]
    seed_everything(6)
    restore_random_states(states)
    assert [draws() for _ in range(3)] == expected


def test_looking_at_the_random_states_draws_nothing() -> None:
    seed_everything(5)
    expected = draws()
    seed_everything(5)
    random_states()
    assert draws() == expected


def test_an_epoch_without_a_batch_yet_has_no_scores() -> None:
    state = small_state()
    assert state.observed.joined()["scores"].shape == (0,)
    assert state.observed.joined()["labels"].dtype == torch.int64
    assert not state.history.under_way.is_trained
