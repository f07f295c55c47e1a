"""The past that a payload holds, one value changed at a time: it is refused by name, or it can be told."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.forging import MISSING, Place, changed, places_in
from tests.small_state import OPTIONS, complete_epoch, seed_everything, small_state, train
from training.checkpoints.appended import written_out
from training.checkpoints.history import History
from training.checkpoints.history_checks import require_history
from training.loop.starting_state import refusing_odd
from training.reports.csv_table import csv_rows
from training.reports.points import Curves
from training.runs.reproduction import how_to_repeat, what_differs
from training.settings.tasks import DETECTION
from training.settings.wandb import WandbIdentity
from utils.errors import UserError
from utils.stored_values import OddValueError

SEED = 11
DEEP: Any = []
for _ in range(100):
    DEEP = [DEEP]
ODD = [
    MISSING,
    None,
    True,
    -1,
    0.5,
    10**30,
    float("inf"),
    float("nan"),
    "",
    "\ud800",
    "../x",
    [],
    [[]],
    DEEP,
    {},
    {5: 1},
]
SESSION = {
    "started_at": 1.7e9,
    "step": 0,
    "source": "",
    "source_saved_at": None,
    "environment": {"torch": "2", "gpus": ["none"]},
    "changes": {"lr": [1e-3, 1e-4]},
}


def payload() -> dict[str, Any]:
    """Return the past of a run of two epochs and a half, as a payload holds it."""
    state = small_state()
    seed_everything(1)
    for _ in range(2):
        train(state, 10)
        complete_epoch(state)
    train(state, 4)
    made = written_out(state.history.taken()) | {
        "unfinished_epoch": vars(state.history.under_way),
        "sessions": [SESSION],
    }
    made["validations"], made["validation_times"] = [{"step": 24, "epoch": 2, **_figures()}], [1.7e9]
    return made


def _figures() -> dict[str, float]:
    return {"val_loss": 0.5, "val_acc": 90.0, "val_eer": 5.0}


def forgeries(made: dict[str, Any]) -> list[tuple[Place, Any]]:
    chance = random.Random(SEED)
    places = list(places_in(made))
    return [(p, value) for p in places for value in (ODD if len(p) == 1 else chance.sample(ODD, 5))]


def test_an_odd_past_is_refused_or_can_be_told() -> None:
    good = payload()
    told = refused = 0
    for place, value in forgeries(good):
        try:
            history = History.in_payload(changed(good, place, value), DETECTION.figures)
        except (KeyError, OddValueError):
            refused += 1
            continue
        told += 1
        assert history.best and history.last and history.validated, (place, value)
        assert 2 <= history.position <= 3 and history.epochs_at(15) > 0
        assert list(Curves.of(history).in_order())
        what_differs(history, OPTIONS), how_to_repeat(history, OPTIONS)
        assert csv_rows(history)
    assert refused > 300 and told > 20


LENGTHS = [("history", 1), ("history", 3), ("times", 0), ("times", 1), ("times", 3), ("validation_times", 2)]


@pytest.mark.parametrize(("name", "length"), LENGTHS)
def test_a_past_of_another_length_is_refused(name: str, length: int) -> None:
    made = payload()
    made[name] = (made[name] * 3)[:length]
    with pytest.raises(OddValueError, match=r"is not that of 2 epochs|not as many times as validations"):
        require_history(made)


def test_a_checkpoint_that_is_refused_so_is_named_with_the_way_on() -> None:
    said = r"a\.pth cannot be resumed: .* makes no sense \(it has no sensible epoch.*--resume --model_path FILE"
    with pytest.raises(UserError, match=said), refusing_odd(Path("a.pth")):
        require_history(payload() | {"epoch": -1})


IDS = ["../x", "a/b", "", "*", "[a]", "a b", "a\n", "\x1b[2J", 5, None, "x" * 500]


@pytest.mark.parametrize("run_id", IDS, ids=ascii)
def test_an_id_of_wandb_that_leads_elsewhere_is_none(run_id: object) -> None:
    stored = {"wandb_run_name": "n", "wandb_project": "p"}
    assert WandbIdentity.in_payload({"wandb_run_id": run_id, **stored}) is None
    assert WandbIdentity.in_payload({"wandb_run_id": "abc-12_3", **stored}) == WandbIdentity("abc-12_3", "n", "p")
