"""The logs show one line, no overlap, however often the run was stopped: they are rebuilt from the history."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.records import metrics
from tests.small_disk import fill, mounted
from tests.small_state import small_state
from training.checkpoints.history import EpochTime, StepMetrics
from training.reports.csv_table import CSV_COLUMNS
from training.reports.curves import Curves
from training.reports.run_logs import RunLogs
from training.runs.directory import RunDirectory
from training.state.train_state import TrainState

RUN = RunDirectory(Path("models/run"))
SCALARS = [
    "time/blocked_by_saving_s",
    "time/epoch_s",
    "time/step_ms",
    "train/eer",
    "train/learning_rate",
    "train/loss",
    "val/accuracy",
    "val/eer",
    "val/loss",
]


@pytest.fixture
def folder(workplace: Path) -> Path:
    RUN.folder.mkdir(parents=True)
    return RUN.folder


def state_after(epochs: int, offset: float = 0.0) -> TrainState:
    """Return a state whose epoch N has a validation EER of N plus `offset` percent."""
    state = small_state()
    for _ in range(epochs):
        complete(state, offset)
    return state


def complete(state: TrainState, offset: float = 0.0) -> None:
    state.epoch += 1
    state.history.append(metrics(state.epoch, val_eer=state.epoch + offset))
    state.times.append(EpochTime(state.epoch, 1_790_000_000.0 + 60 * state.epoch, 12.34, 250.0, 0.5))


def process(state: TrainState, epochs: int, *, closed: bool = True) -> None:
    """Log as one process does: from a state, for some more epochs, to its end or until it is killed."""
    logs = RunLogs(RUN, Curves.of(state))
    for _ in range(epochs):
        complete(state)
        logs.epoch_completed(state)
    if closed:
        logs.close()


def rows() -> list[dict[str, str]]:
    with RUN.training_log.open(newline="") as file:
        return list(csv.DictReader(file))


def scalars(tag: str) -> list[tuple[int, float]]:
    board = EventAccumulator(str(RUN.logs_folder))
    board.Reload()
    return [(event.step, event.value) for event in board.Scalars(tag)]


def test_the_csv_has_a_header_and_one_row_per_epoch(folder: Path) -> None:
    process(state_after(0), 3)
    lines = RUN.training_log.read_text().splitlines()
    assert lines[0] == ",".join(CSV_COLUMNS)
    assert len(lines) == 1 + 3
    assert lines[1].startswith("1,2026-09-21T")
    assert [row["epoch"] for row in rows()] == ["1", "2", "3"]


def test_the_columns_of_the_csv_are_pinned() -> None:
    """People's plotting scripts read them: a change is a decision."""
    assert CSV_COLUMNS == (
        "epoch",
        "timestamp",
        "seconds",
        "step",
        "train_loss",
        "train_eer",
        "val_loss",
        "val_acc",
        "val_eer",
        "learning_rate",
        "step_ms",
        "blocked_seconds",
    )


def test_the_csv_gives_every_figure_back_to_the_last_bit(folder: Path) -> None:
    state = small_state()
    complete(state)
    state.history[0] = replace(state.history[0], val_eer=0.1 + 0.2, val_loss=1 / 3, learning_rate=1e-06)
    RunLogs(RUN, Curves.of(state)).close()
    written = {name: float(rows()[0][name]) for name in asdict(state.history[0])}
    assert written == asdict(state.history[0])


def test_a_run_that_has_no_epoch_yet_has_a_header_alone(folder: Path) -> None:
    process(state_after(0), 0)
    assert RUN.training_log.read_text() == ",".join(CSV_COLUMNS) + "\n"


def test_rebuilding_removes_what_came_after_the_checkpoint(folder: Path) -> None:
    process(state_after(0, offset=0.5), 0)
    process(state_after(5, offset=0.5), 0)
    process(state_after(2), 0)
    assert [row["val_eer"] for row in rows()] == ["1.0", "2.0"]
    assert scalars("val/eer") == [(1, 1.0), (2, 2.0)]


def test_after_three_restarts_the_board_holds_each_epoch_exactly_once(folder: Path) -> None:
    process(state_after(0), 2)
    process(state_after(2), 1)
    process(state_after(1), 2, closed=False)  # resumed from an older checkpoint, then killed
    process(state_after(3), 2)
    board = EventAccumulator(str(RUN.logs_folder))
    board.Reload()
    assert sorted(board.Tags()["scalars"]) == SCALARS
    assert scalars("val/eer") == [(epoch, float(epoch)) for epoch in range(1, 6)]
    assert all([step for step, _ in scalars(tag)] == [1, 2, 3, 4, 5] for tag in SCALARS)
    assert [row["epoch"] for row in rows()] == ["1", "2", "3", "4", "5"]


def test_an_epoch_is_on_the_board_as_soon_as_it_is_completed(folder: Path) -> None:
    """A process that is killed later must not take it along."""
    state = state_after(1)
    logs = RunLogs(RUN, Curves.of(state))
    complete(state)
    logs.epoch_completed(state)
    assert scalars("val/eer") == [(1, 1.0), (2, 2.0)]
    assert len(rows()) == 2
    logs.close()


def test_rebuilt_points_keep_the_time_at_which_their_epoch_ended(folder: Path) -> None:
    process(state_after(2), 0)
    board = EventAccumulator(str(RUN.logs_folder))
    board.Reload()
    assert [event.wall_time for event in board.Scalars("val/eer")] == [1_790_000_060.0, 1_790_000_120.0]


def test_the_logs_of_earlier_versions_and_files_of_others_are_left_alone(folder: Path) -> None:
    earlier = RUN.logs_version_folder(1)
    earlier.mkdir(parents=True)
    kept = [earlier / "events.out.tfevents.1", RUN.logs_folder / "notes.txt"]
    for path in kept:
        path.write_text("kept")
    process(state_after(1), 1)
    assert [path.read_text() for path in kept] == ["kept", "kept"]


def write_figure(epoch: int, name: str, shade: int = 128) -> None:
    from PIL import Image  # noqa: PLC0415

    folder = RUN.attention_folder(epoch)
    folder.mkdir(exist_ok=True)
    Image.new("RGBA", (1800, 900), (shade, 0, 0, 255)).save(folder / f"{name}.png")


def images(tag: str) -> list[tuple[int, int, int]]:
    board = EventAccumulator(str(RUN.logs_folder), size_guidance={"images": 0})
    board.Reload()
    return [(event.step, event.width, event.height) for event in board.Images(tag)]


def test_heatmaps_of_the_epochs_so_far_are_images_and_later_ones_are_not(folder: Path) -> None:
    for epoch in (1, 2, 3):
        write_figure(epoch, "layer_importance_spoof")
    state = state_after(1)
    logs = RunLogs(RUN, Curves.of(state))
    assert images("attention/layer_importance_spoof") == [(1, 720, 360)]
    complete(state)
    logs.epoch_completed(state)
    assert len(images("attention/layer_importance_spoof")) == 1, "those of epoch 2 are a killed process's until drawn"
    logs.heatmaps_drawn(state)
    logs.close()
    process(state, 0)
    assert [epoch for epoch, _, _ in images("attention/layer_importance_spoof")] == [1, 2]


def test_a_figure_that_is_no_png_costs_that_image_alone(folder: Path) -> None:
    write_figure(1, "sample_000_spoof_pred_bonafide_wrong")
    (RUN.attention_folder(1) / "layer_importance_spoof.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    process(state_after(1), 0)
    board = EventAccumulator(str(RUN.logs_folder))
    board.Reload()
    assert board.Tags()["images"] == ["attention_sample/000_spoof"]


def test_validations_within_epochs_are_points_at_their_steps_and_those_after_the_checkpoint_go(folder: Path) -> None:
    state = state_after(1)
    logs = RunLogs(RUN, Curves.of(state))
    for step in (13, 16):
        state.validations.append(StepMetrics(step, 1, 0.5, 90.0, float(step)))
        state.validation_times.append(1_790_000_000.0 + step)
        logs.step_validated(state)
    assert scalars("val_step/eer") == [(13, 13.0), (16, 16.0)]
    del state.validations[1:], state.validation_times[1:]
    process(state, 0)
    assert scalars("val_step/eer") == [(13, 13.0)]


def test_an_epoch_that_an_earlier_version_logged_has_no_step_time(folder: Path) -> None:
    state = state_after(1)
    state.times[0] = EpochTime(1, 1_790_000_060.0, 12.34)
    process(state, 1)
    assert [row["step_ms"] for row in rows()] == ["", "250.000"]
    assert scalars("time/step_ms") == [(2, 250.0)]


@pytest.fixture
def full_logs(folder: Path) -> Iterator[Path]:
    """The logs folder on a disk of its own that can be filled: the run folder is on another."""
    RUN.logs_folder.parent.mkdir()
    with mounted(RUN.logs_folder, "-t", "tmpfs", "-o", "size=64k", "none") as disk:
        yield disk


def test_a_disk_that_is_full_for_some_epochs_costs_no_row_in_the_end(
    full_logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = state_after(1)
    logs = RunLogs(RUN, Curves.of(state))
    filler = fill(full_logs, leave=0)
    for _ in range(30):  # what is left of the block that the file has already takes the first of them
        complete(state)
        logs.epoch_completed(state)
    assert f"[WARNING] {RUN.logs_folder} could not be written: No space left on device." in capsys.readouterr().out
    assert [row["epoch"] for row in rows()][-1] == "31", "the run folder's disk is not full"
    filler.unlink()
    complete(state)
    logs.epoch_completed(state)
    assert capsys.readouterr().out == ""
    assert [step for step, _ in scalars("val/eer")] == list(range(1, 33))
    assert len(list(RUN.logs_folder.iterdir())) == 1
    logs.close()


def test_a_disk_that_has_room_again_only_at_the_end_gets_every_row_at_the_end(full_logs: Path) -> None:
    state = state_after(1)
    logs = RunLogs(RUN, Curves.of(state))
    filler = fill(full_logs, leave=0)
    for _ in range(30):
        complete(state)
        logs.epoch_completed(state)
    filler.unlink()
    logs.close()
    assert [step for step, _ in scalars("val/eer")] == list(range(1, 32))


def test_a_disk_that_stays_full_lets_the_run_end(full_logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = state_after(1)
    logs = RunLogs(RUN, Curves.of(state))
    fill(full_logs, leave=0)
    for _ in range(30):
        complete(state)
        logs.epoch_completed(state)
    logs.close()
    said = capsys.readouterr()
    assert said.err == ""
    assert set(said.out.splitlines()) == {
        f"[WARNING] {RUN.logs_folder} could not be written: No space left on device. "
        "The epochs it lacks are added as soon as the disk takes them."
    }


@pytest.mark.parametrize("what", ["its files", "the folder"])
def test_logs_that_somebody_removes_are_written_again_whole(folder: Path, what: str) -> None:
    state = state_after(2)
    logs = RunLogs(RUN, Curves.of(state))
    if what == "the folder":
        shutil.rmtree(RUN.logs_folder)
    else:
        for path in RUN.logs_folder.iterdir():
            path.unlink()
    complete(state)
    logs.epoch_completed(state)
    assert [step for step, _ in scalars("val/eer")] == [1, 2, 3]
    logs.close()


def test_a_run_folder_that_is_gone_costs_no_row_of_the_board(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = state_after(1)
    logs = RunLogs(RUN, Curves.of(state))
    RUN.training_log.unlink()
    RUN.folder.rmdir()
    complete(state)
    logs.epoch_completed(state)
    assert f"{RUN.training_log} could not be written: No such file or directory" in capsys.readouterr().out
    assert [step for step, _ in scalars("val/eer")] == [1, 2]
    RUN.folder.mkdir()
    logs.close()
    assert [row["epoch"] for row in rows()] == ["1", "2"]
