"""The logs show one line, no overlap, however often the run was stopped: they are rebuilt from the history."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.records import metrics, validated
from tests.small_disk import fill, mounted
from tests.small_state import OPTIONS, small_state
from training.checkpoints.rows import EpochTime
from training.reports.csv_table import CsvTable, csv_columns
from training.reports.reporting import Reports
from training.reports.story import Moment, Story
from training.reports.tensorboard_file import TensorBoardFile
from training.runs.directory import RunDirectory
from training.settings.tasks import DETECTION
from training.state.train_state import TrainState

RUN = RunDirectory(Path("models/run"))
COLUMNS = csv_columns(DETECTION.figures)
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
    epoch = state.epoch + 1
    state.history.complete_epoch(metrics(epoch, val_eer=epoch + offset), batches_per_epoch=10)
    state.history.times[-1] = EpochTime(epoch, 1_790_000_000.0 + 60 * epoch, 12.34, 250.0, 0.5)


def begun(state: TrainState) -> Reports:
    """Return the logs of a process that goes on from a state."""
    reports = Reports([TensorBoardFile(RUN), CsvTable(RUN.training_log)], lambda: Story(OPTIONS, state.history))
    reports.tell(Moment.BEGUN)
    return reports


def process(state: TrainState, epochs: int, *, closed: bool = True) -> None:
    """Log as one process does: from a state, for some more epochs, to its end or until it is killed."""
    logs = begun(state)
    for _ in range(epochs):
        complete(state)
        logs.tell(Moment.EPOCH_COMPLETED)
    if closed:
        logs.end()


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
    assert lines[0] == ",".join(COLUMNS)
    assert len(lines) == 1 + 3
    assert lines[1].startswith("1,2026-09-21T")
    assert [row["epoch"] for row in rows()] == ["1", "2", "3"]


def test_the_columns_of_the_csv_are_pinned() -> None:
    """People's plotting scripts read them: a change is a decision."""
    assert COLUMNS == (
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
    row = state.history.epochs[0]
    state.history.epochs[0] = replace(row, figures={**row.figures, "val_eer": 0.1 + 0.2, "val_loss": 1 / 3})
    begun(state).end()
    written = {name: float(rows()[0][name]) for name in state.history.epochs[0].as_dict()}
    assert written == state.history.epochs[0].as_dict()


def test_a_run_that_has_no_epoch_yet_has_a_header_alone(folder: Path) -> None:
    process(state_after(0), 0)
    assert RUN.training_log.read_text() == ",".join(COLUMNS) + "\n"


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
    logs = begun(state)
    complete(state)
    logs.tell(Moment.EPOCH_COMPLETED)
    assert scalars("val/eer") == [(1, 1.0), (2, 2.0)]
    assert len(rows()) == 2
    logs.end()


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
    logs = begun(state)
    assert images("attention/layer_importance_spoof") == [(1, 720, 360)]
    complete(state)
    logs.tell(Moment.EPOCH_COMPLETED)
    assert len(images("attention/layer_importance_spoof")) == 1, "those of epoch 2 are a killed process's until drawn"
    logs.tell(Moment.EPOCH_DRAWN)
    logs.end()
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
    logs = begun(state)
    for step in (13, 16):
        state.history.validations.append(validated(step, 1, val_eer=float(step)))
        state.history.validation_times.append(1_790_000_000.0 + step)
        logs.tell(Moment.STEP_VALIDATED)
    assert scalars("val_step/eer") == [(13, 13.0), (16, 16.0)]
    del state.history.validations[1:], state.history.validation_times[1:]
    process(state, 0)
    assert scalars("val_step/eer") == [(13, 13.0)]


def test_an_epoch_that_an_earlier_version_logged_has_no_step_time(folder: Path) -> None:
    state = state_after(1)
    state.history.times[0] = EpochTime(1, 1_790_000_060.0, 12.34)
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
    logs = begun(state)
    filler = fill(full_logs, leave=0)
    for _ in range(30):  # what is left of the block that the file has already takes the first of them
        complete(state)
        logs.tell(Moment.EPOCH_COMPLETED)
    assert f"[WARNING] {RUN.logs_folder} could not be written: No space left on device." in capsys.readouterr().out
    assert [row["epoch"] for row in rows()][-1] == "31", "the run folder's disk is not full"
    filler.unlink()
    complete(state)
    logs.tell(Moment.EPOCH_COMPLETED)
    assert capsys.readouterr().out == ""
    assert [step for step, _ in scalars("val/eer")] == list(range(1, 33))
    assert len(list(RUN.logs_folder.iterdir())) == 1
    logs.end()


def test_a_disk_that_has_room_again_only_at_the_end_gets_every_row_at_the_end(full_logs: Path) -> None:
    state = state_after(1)
    logs = begun(state)
    filler = fill(full_logs, leave=0)
    for _ in range(30):
        complete(state)
        logs.tell(Moment.EPOCH_COMPLETED)
    filler.unlink()
    logs.end()
    assert [step for step, _ in scalars("val/eer")] == list(range(1, 32))


def test_a_disk_that_stays_full_lets_the_run_end(full_logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = state_after(1)
    logs = begun(state)
    fill(full_logs, leave=0)
    for _ in range(30):
        complete(state)
        logs.tell(Moment.EPOCH_COMPLETED)
    logs.end()
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines() == [
        f"[WARNING] {RUN.logs_folder} could not be written: No space left on device. "
        "Training goes on, and the next epoch tries again."
    ], "once, however many epochs"


@pytest.mark.parametrize("what", ["its files", "the folder"])
def test_logs_that_somebody_removes_are_written_again_whole(folder: Path, what: str) -> None:
    state = state_after(2)
    logs = begun(state)
    if what == "the folder":
        shutil.rmtree(RUN.logs_folder)
    else:
        for path in RUN.logs_folder.iterdir():
            path.unlink()
    complete(state)
    logs.tell(Moment.EPOCH_COMPLETED)
    assert [step for step, _ in scalars("val/eer")] == [1, 2, 3]
    logs.end()


def test_a_run_folder_that_is_gone_costs_no_row_of_the_board(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = state_after(1)
    logs = begun(state)
    RUN.training_log.unlink()
    RUN.folder.rmdir()
    complete(state)
    logs.tell(Moment.EPOCH_COMPLETED)
    assert f"{RUN.training_log} could not be written: No such file or directory" in capsys.readouterr().out
    assert [step for step, _ in scalars("val/eer")] == [1, 2]
    RUN.folder.mkdir()
    logs.end()
    assert [row["epoch"] for row in rows()] == ["1", "2"]
