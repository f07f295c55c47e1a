"""A task of two networks, taken through the whole program: nothing in it knows that a run trains a detector."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from main import main
from tests.comparing import bits, differences
from tests.small_state import small_state
from tests.toy_task import registered
from training.checkpoints.examined import examine
from training.checkpoints.record import CheckpointRecord
from training.saving.store import save_checkpoint
from training.state.train_state import TrainState

PARTS = (
    "echo_state_dict",
    "critic_state_dict",
    "echo_optimizer_state_dict",
    "critic_optimizer_state_dict",
    "critic_schedule_state_dict",
    "echo_schedule_state_dict",
)
EPOCHS = 4
DuringStep = Callable[[dict[int, Callable[[], object]]], None]


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registered():
        yield


def train(corpus: Path, *arguments: str) -> int:
    flags = ["--model_type", "echo", "--batch_size", "4", "--num_workers", "0", "--num_epochs", str(EPOCHS)]
    return main([*flags, "--accumulate_steps", "2", "--database_path", str(corpus), *arguments])


def the_run() -> Path:
    (folder,) = Path("models").iterdir()
    return folder


@pytest.fixture
def trained(corpus: Path, workplace: Path) -> Path:
    assert train(corpus, "--val_interval", "1") == 0
    return the_run()


def payload_of(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


def test_all_parts_are_saved_in_one_file_and_the_record_names_them(trained: Path) -> None:
    payload = payload_of(trained / "checkpoint_epoch_2.pth")
    assert set(PARTS) <= set(payload)
    record = examine(trained / "checkpoint_epoch_2.pth")
    assert isinstance(record, CheckpointRecord)
    assert record.parts == (*PARTS, "width")
    assert (record.task, record.figures.first.name, record.figures.first.higher_is_better) == (
        "echo",
        "val_closeness",
        True,
    )
    assert record.last is not None and record.last["val_closeness"] == payload["val_closeness"]
    assert record.kept == {"furthest": payload["furthest"]}


def test_the_best_epoch_is_that_of_the_highest_figure_and_has_a_file_of_its_own(trained: Path) -> None:
    values = {n: payload_of(trained / f"checkpoint_epoch_{n}.pth")["val_closeness"] for n in range(1, EPOCHS + 1)}
    best = max(values, key=lambda number: values[number])
    assert payload_of(trained / "best_checkpoint_closeness.pth")["epoch"] == best
    weights = payload_of(trained / "best_model_closeness.pth")
    assert set(weights) == {"echo_state_dict", "width", "args", "config", "epoch", "metrics"}
    assert weights["epoch"] == best
    assert not list(trained.glob("*eer*"))


def test_it_is_listed_inspected_and_validated(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = payload_of(trained / f"checkpoint_epoch_{EPOCHS}.pth")
    capsys.readouterr()
    assert main(["--list_checkpoints", "--model_path", str(trained)]) == 0
    block = capsys.readouterr().out
    assert (
        f"📦 checkpoint_epoch_{EPOCHS}.pth\n   Epoch: {EPOCHS}\n   Val closeness: {last['val_closeness']:.4f}\n"
        f"   Best closeness: {last['best_val_closeness']:.4f}\n"
    ).lower() in block.lower()
    assert "EER" not in block
    assert main(["--inspect_checkpoint", str(trained / "checkpoint_epoch_1.pth"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["record"]["task"] == "echo"
    assert {tensor["key"] for tensor in found["tensors"]} >= {"echo_state_dict", "critic_state_dict"}
    assert main(["--validate_checkpoints", str(trained)]) == 0


def test_its_figures_are_in_every_log(trained: Path) -> None:
    with (trained / "training_log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("epoch", "timestamp", "seconds", "step", "train_error", "val_closeness", "val_doubt", "learning_rate"),
        *("step_ms", "blocked_seconds"),
    ]
    board = EventAccumulator(str(Path("logs") / trained.name))
    board.Reload()
    values = [event.value for event in board.Scalars("val/closeness")]
    assert values == pytest.approx([float(row["val_closeness"]) for row in rows])
    assert len(board.Scalars("val_step/closeness")) == 2 * EPOCHS


def test_its_page_tells_its_figures_and_nothing_of_detection(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    assert "Best validation closeness" in page
    assert "<th>Val closeness</th>" in page
    assert re.search(r"<figcaption><span>Closeness</span>", page)
    assert "EER" not in re.sub(r"<section id=\"settings\">.*?</section>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("stops", [(1,), (2,), (3, 4, 5), tuple(range(1, 8))], ids=str)
def test_stopped_and_resumed_it_ends_with_the_bits_of_never_stopping(
    stops: tuple[int, ...], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during_step: DuringStep
) -> None:
    during_step({step: lambda: os.kill(os.getpid(), signal.SIGTERM) for step in stops})
    folders = []
    for name, codes in (("stopped", [143] * len(stops) + [0]), ("undisturbed", [0])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert [train(corpus, "--auto_resume") for _ in codes] == codes
        folders.append(tmp_path / name / the_run())
    names = [f"checkpoint_epoch_{number}.pth" for number in range(1, EPOCHS + 1)]
    for name in [*names, "best_checkpoint_closeness.pth"]:
        assert differences(bits(folders[0] / name), bits(folders[1] / name), name) == []
    weights = [payload_of(folder / "best_model_closeness.pth")["echo_state_dict"] for folder in folders]
    assert differences(weights[0], weights[1]) == []


def test_a_signal_between_the_two_updates_finishes_both(
    corpus: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file holds the critic of one step beside the echo of another."""
    original = torch.optim.AdamW.step

    def step_and_signal(optimizer: torch.optim.AdamW, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step_and_signal)
    assert train(corpus) == 143
    payload = payload_of(the_run() / "checkpoint_step_1.pth")
    assert [payload[f"{name}_optimizer_state_dict"]["state"][0]["step"] for name in ("critic", "echo")] == [1, 1]


@pytest.mark.parametrize("lacking", [*PARTS, "width"])
def test_a_file_that_lacks_one_of_its_parts_is_refused(
    lacking: str, trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained / "checkpoint_epoch_2.pth"
    record = examine(path)
    assert isinstance(record, CheckpointRecord)
    payload = payload_of(path)
    del payload[lacking]
    save_checkpoint(path, payload, record)
    assert main(["--resume", "--model_path", str(path)]) == 1
    assert f"it lacks {lacking}" in capsys.readouterr().err
    assert main(["--validate_checkpoints", str(path)]) == 1
    assert f"it lacks {lacking}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "why"), [("--eval", "no scores"), ("--score", "judges none"), ("--export", "no class")]
)
def test_a_verb_that_makes_no_sense_for_it_is_refused_with_the_reason(
    verb: str, why: str, trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    behind = {"--score": [str(next(corpus.rglob("*.flac")))], "--export": ["onnx"]}.get(verb, [])
    assert main([verb, *behind, "--model_path", str(trained)]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"error: {verb} models/") and why in message and "--model_type echo" in message


def test_two_parts_of_one_name_are_refused_when_the_state_is_built() -> None:
    """Both were saved as `generator_state_dict`, so that the network was lost without a word."""
    state = small_state()
    network, optimizer = state.networks["model"], state.optimizers["optimizer"]
    with pytest.raises(ValueError, match="share the name generator"):
        TrainState({"generator": network}, {"generator": optimizer}, {}, state.history)
