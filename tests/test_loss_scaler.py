"""--precision fp16: a step whose gradients overflow changes its position and the scale alone, wherever it stops."""

from __future__ import annotations

import math
import os
import re
import signal
import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from main import main
from models.precision import autocast
from tests.comparing import bits, differences
from tests.conftest import SMALL_RUN
from tests.loading import load_payload
from tests.test_processes_of_a_step import batch, new_state
from training.data.loading import Batch
from training.data.shares import StepBatches
from training.loop import trainer
from training.loop.step import StepResult, take_step
from training.settings.options import Options
from training.state import loss_scaler
from training.state.loss_scaler import LossScaler
from training.state.train_state import TrainState
from training.tasks.detection import DetectionTask
from utils.errors import UserError

CPU = torch.device("cpu")
TOO_HIGH, HIGH = 2.0**30, 1024.0
SKIPS_AND_GROWTHS = (2.0**19, 1)
"""A scale at which the first steps of SMALL_RUN overflow, and after how many steps without that it grows: it falls and
rises within an epoch, wherever exactly the limit is."""


def options(**more: Any) -> Options:
    return Options(lr=1e-2, precision="fp16", use_contrastive=True, **more)


def state_at(scale: float, given: Options | None = None) -> TrainState:
    state = new_state(given or options())
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": scale})
    return state


def step(state: TrainState, *batches: Batch, given: Options | None = None) -> StepResult:
    return take_step(state, DetectionTask(given or options(), CPU), StepBatches.whole(batches or (batch(0),)))


def everything(state: TrainState) -> dict[str, Any]:
    parts = {name: part.state_dict() for name, part in state.parts.items()}
    return {
        name: {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in stored.items()}
        for name, stored in parts.items()
    }


def test_fp16_multiplies_in_float16_with_weights_in_float32() -> None:
    weights = torch.ones(2, 2)
    with autocast(CPU, "fp16"):
        assert (weights @ weights).dtype == torch.float16
    state = state_at(HIGH)
    result = step(state)
    assert result.observed[0]["scores"].dtype == torch.float32
    assert {one.dtype for one in state.networks["model"].parameters()} == {torch.float32}


def test_gradients_that_overflow_skip_the_update_and_halve_the_scale_and_the_step_counts() -> None:
    state = state_at(TOO_HIGH)
    before = everything(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's, of a schedule that is ahead of its optimizer
        result = step(state)
    after = everything(state)
    for name in ("model", "optimizer"):  # no weight, no moment, no running statistic
        assert differences(after[f"{name}_state_dict"], before[f"{name}_state_dict"]) == []
    assert after["scaler_state_dict"]["scale"] == TOO_HIGH / 2
    assert (state.step, state.schedulers["scheduler"].last_epoch) == (1, 1)
    assert result.utterances == 3 and len(result.observed[0]["scores"]) == 3


def test_the_scale_doubles_after_so_many_steps_without_overflow_and_the_count_begins_anew() -> None:
    state = state_at(HIGH)
    state.scaler.set_growth_interval(3)
    found = []
    for _ in range(4):
        step(state)
        stored = state.scaler.state_dict()
        found.append((stored["scale"], stored["_growth_tracker"]))
    assert found == [(HIGH, 1), (HIGH, 2), (2 * HIGH, 0), (2 * HIGH, 1)]


def test_the_scale_changes_no_loss_and_gradients_are_clipped_as_they_are_without_it() -> None:
    clipped = options(clip_grad_norm=0.01)
    states = [state_at(scale, clipped) for scale in (1.0, 1024.0)]
    losses = [step(state, batch(0), batch(1), given=clipped).loss for state in states]
    assert losses[0] == losses[1]
    moments = [
        torch.cat([kept["exp_avg"].flatten() for kept in state.optimizers["optimizer"].state.values()])
        for state in states
    ]
    assert moments[0].norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)  # Adam keeps a tenth of a gradient
    torch.testing.assert_close(*moments, rtol=0.05, atol=1e-5)  # small ones are rounded more without the scale


@pytest.mark.parametrize(
    ("scale", "value", "told"),
    [
        (1.0, 1e30, "the gradient's norm is "),
        (TOO_HIGH, float("nan"), "the loss is nan with the loss scaled by 1.07374e+09 at step 1, batch 1 of epoch 1"),
    ],
)
def test_what_no_smaller_scale_mends_is_divergence(scale: float, value: float, told: str) -> None:
    state, spoilt = state_at(scale), batch(0)
    if math.isnan(value):
        spoilt.waveforms[:] = value
    else:
        state.networks["model"].norms.weight.register_hook(lambda gradient: gradient * torch.inf)  # type: ignore[operator, union-attr]
    before = everything(state)
    with pytest.raises(UserError, match=f"^training diverged: {re.escape(told)}") as raised:
        step(state, spoilt)
    assert "or with --precision bf16 or fp32, which hold larger numbers" in str(raised.value)
    assert differences(everything(state), before) == []


def test_other_precisions_have_no_scaler_and_a_checkpoint_of_theirs_begins_with_a_new_scale(tmp_path: Path) -> None:
    plain, scaled = new_state(Options()), state_at(HIGH)
    assert "scaler_state_dict" not in plain.to_payload() and not LossScaler().state_dict()
    scaled.restore(plain.to_payload(), tmp_path)
    assert scaled.scaler.get_scale() == HIGH
    scaled.restore(state_at(8.0).to_payload(), tmp_path)
    assert scaled.scaler.get_scale() == 8.0


def train(corpus: Path, *arguments: str) -> int:
    flags = [*SMALL_RUN, "--num_epochs", "1", "--num_examples", "8", "--batch_size", "2", "--precision", "fp16"]
    return main([*flags, "--database_path", str(corpus), "--clip_grad_norm", "1", *arguments])


def the_run() -> Path:
    (folder,) = Path("models").iterdir()
    return folder


def watched_scales(
    monkeypatch: pytest.MonkeyPatch, initial_scale: float, growth_interval: int
) -> tuple[list[float], list[int]]:
    """Begin trainings at that scale; return the list of the scales after each step, and one of steps to stop after."""
    monkeypatch.setattr(loss_scaler, "INITIAL_SCALE", initial_scale)
    monkeypatch.setattr(loss_scaler, "GROWTH_INTERVAL", growth_interval)
    original = take_step
    scales, stops = [initial_scale], list[int]()

    def watched(state: TrainState, *given: Any) -> StepResult:
        result = original(state, *given)
        scales.append(state.scaler.get_scale())
        if state.step in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(trainer, "take_step", watched)
    return scales, stops


def test_stopped_where_the_scale_falls_and_where_it_rises_a_run_in_fp16_ends_with_the_bits_of_never_stopping(
    corpus: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file is of a run whose one step was skipped: its optimizer holds nothing yet."""
    scales, stops = watched_scales(monkeypatch, *SKIPS_AND_GROWTHS)
    assert train(corpus) == 0
    undisturbed = the_run().rename("undisturbed")
    seen, changes = list(scales), [after / before for before, after in pairwise(scales)]
    assert changes[0] == 0.5
    stops[:] = [1, changes.index(2.0) + 1]
    for step in stops:
        assert train(corpus, "--auto_resume") == 143
        payload = load_payload(the_run() / "last_checkpoint.pth")
        assert payload["scaler_state_dict"]["scale"] == seen[step]
        assert _updates(payload) == sum(change != 0.5 for change in changes[:step])
    assert train(corpus, "--auto_resume") == 0
    name = "checkpoint_epoch_1.pth"
    assert differences(bits(the_run() / name), bits(undisturbed / name), name) == []


def _updates(payload: Mapping[str, Any]) -> int:
    moments = payload["optimizer_state_dict"]["state"]
    return int(moments[0]["step"]) if moments else 0
