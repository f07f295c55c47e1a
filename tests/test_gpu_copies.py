"""The copies of a save from a GPU: what was queued before is in them, what is queued after is not; mutants are seen.

The state is so large that a copy which comes too early or too late shows. `make test-gpu` runs this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.small_state import FACTS, OPTIONS
from tests.test_background_saving import fences, saver_of, write
from training.checkpoints.history import History, UnfinishedEpoch
from training.checkpoints.record import Kind
from training.saving.background_copies import BackgroundCopies
from training.saving.background_saving import BackgroundSaver, tensors_that_steps_change
from training.saving.store import save_checkpoint
from training.settings.tasks import DETECTION
from training.state.snapshot import take_snapshot
from training.state.train_state import Observations, TrainState
from training.tasks.schedule import make_schedule

pytestmark = pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a GPU: make test-gpu")

WIDTH = 8192


class Big(nn.Module):
    """One weight of 256 MB; its copy takes some ms, and to change it a fraction of that."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH, device="cuda"))


def big_state() -> TrainState:
    net = Big()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    history = History(DETECTION.figures, UnfinishedEpoch(10), (("run-a", 0),))
    observed = Observations({"scores": torch.empty(0), "labels": torch.empty(0, dtype=torch.int64)})
    schedule = make_schedule(optimizer, OPTIONS, 10_000)
    return TrainState({"model": net}, {"optimizer": optimizer}, {"scheduler": schedule}, history, observed)


def add_one(state: TrainState, after_cycles: int = 0) -> None:
    """Queue a step that adds one to the weight, behind so many cycles in which the GPU does nothing."""
    optimizer = state.optimizers["optimizer"]
    optimizer.param_groups[0]["lr"] = 1.0
    (weight,) = state.networks["model"].parameters()
    weight.grad = torch.full_like(weight, -1.0)
    if after_cycles:
        torch.cuda._sleep(after_cycles)  # type: ignore[no-untyped-call]
    optimizer.step()
    state.history.step += 1


def saved_beside_steps(folder: Path) -> list[tuple[float, float]]:
    """Save three times, each right behind a queued step and before two more; return what each file holds: min, max."""
    state = big_state()
    saver: BackgroundSaver[Path] = BackgroundSaver(
        write(folder), lambda: tensors_that_steps_change(state.networks.values(), state.optimizers.values()), True
    )
    with fences(saver, state):
        add_one(state)
        saver.prepare()
        for _ in range(3):
            add_one(state, after_cycles=100_000_000)  # some 50 ms
            saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
            add_one(state)
            add_one(state)
            saver.wait()
        saver.close()
    found = []
    for step in (2, 5, 8):
        weight = torch.load(folder / f"{step}.pth", weights_only=True)["model_state_dict"]["weight"]
        found.append((weight.min().item(), weight.max().item()))
    return found


RIGHT = [(2.0, 2.0), (5.0, 5.0), (8.0, 8.0)]


def test_a_save_has_what_was_queued_before_it_and_nothing_that_was_queued_after(tmp_path: Path) -> None:
    assert saved_beside_steps(tmp_path) == RIGHT


def _no_wait_of(is_the_copies: bool) -> Callable[..., None]:
    original = torch.cuda.Stream.wait_event

    def wait(self: torch.cuda.Stream, event: torch.cuda.Event) -> None:
        if (self == torch.cuda.default_stream()) == is_the_copies:
            original(self, event)

    return wait


MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "copies do not wait for what was queued": (torch.cuda.Stream, "wait_event", lambda: _no_wait_of(True)),
    "the queue does not wait for the copies": (torch.cuda.Stream, "wait_event", lambda: _no_wait_of(False)),
    "the writer does not wait for the copies": (torch.cuda.Event, "synchronize", lambda: lambda self: None),
    "there is no fence": (BackgroundCopies, "fence", lambda: lambda self: None),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_save_without_one_of_its_waits_is_seen_to_be_wrong(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, attribute, mutant = MUTANTS[name]
    monkeypatch.setattr(place, attribute, mutant())
    assert saved_beside_steps(tmp_path) != RIGHT


def test_a_file_written_beside_steps_has_the_bytes_of_one_written_at_once(tmp_path: Path) -> None:
    state = big_state()
    add_one(state)
    payload, record = take_snapshot(state, FACTS, Kind.STEP)
    save_checkpoint(tmp_path / "direct", payload, record)
    folder = tmp_path / "beside"
    folder.mkdir()
    saver = saver_of(state, write(folder))
    with fences(saver, state):
        saver.begin(payload, record)
        add_one(state)
        path = saver.close()
    assert path is not None
    assert path.read_bytes() == (tmp_path / "direct").read_bytes()
    assert path.stat().st_size > 4 * WIDTH**2
