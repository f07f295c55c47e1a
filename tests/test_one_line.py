"""Every log of a run that was stopped five times, and went on by another number of processes, has each point once."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from tests.conftest import SMALL_RUN, write_corpus
from tests.html_pages import read
from tests.launched import at_step, be_told_to_stop, training
from tests.loading import load_payload
from training.checkpoints.examined import examine
from training.checkpoints.record import CheckpointRecord
from training.reports.points import TIME_SCALARS
from training.reports.wandb_files import next_point, note_first_point, points_in_file, records_in
from training.runs.directory import RunDirectory
from training.settings.tasks import DETECTION
from training.tasks import heatmaps
from training.tasks.heatmap_figures import layer_importance_figure

EPOCHS, VAL_INTERVAL = 3, 3
FIGURES = DETECTION.figures
STEP_TAGS = [f"val_step/{one.scalar}" for one in FIGURES.of_validation]
IMPORTED_ONCE = (
    "matplotlib.figure",
    "wandb",
    "wandb.apis.public",
    "wandb.sdk.launch",
    "torch._dynamo",
)  # for all forks
PROCESSES = (1, 2, 1, 2, 1, 2)  # of each start
BATCHES = ["--batch_size", "2", "--accumulate_steps", "2"]
STOPS = (1, 2, 3, 4, 5)  # of 6 steps: after the last of an epoch too, and where a validation is due
VALIDATED = [3, 6]
DRAWN = [2]
FLAGS = ["--num_epochs", str(EPOCHS), "--val_interval", str(VAL_INTERVAL), "--auto_resume"]
WANDB = ["--wandb", "--wandb_mode", "offline", "--wandb_name", "stopped", "--wandb_tags", "a,b"]
DRAWING = ["--visualize_attention", "--viz_samples", "2", "--viz_frequency", "2"]


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    """A run that SIGTERM to its last process stopped after each of STOPS, and that went on by other processes."""
    folder = tmp_path_factory.mktemp("stopped")
    corpus = write_corpus(folder / "corpus", train=8, dev=4)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HOME", str(folder))  # W&B keeps notes there
        patched.setattr(heatmaps, "_CLASS_FIGURES", {"layer_importance": layer_importance_figure})  # the quickest
        patched.setattr(heatmaps, "DOTS_PER_INCH", 40)
        typed = [*SMALL_RUN, *BATCHES, "--database_path", str(corpus), *FLAGS, *DRAWING, *WANDB]
        for module in IMPORTED_ONCE:
            import_module(module)
        for number, processes in enumerate(PROCESSES):
            befalls = {processes - 1: at_step(1, be_told_to_stop)} if number < len(STOPS) else {}
            running = training(folder / "run", typed, processes, befalls, said_as=f"start_{number}")
            assert running.codes() == [143 if befalls else 0] * processes, running.all_said()
        patched.chdir(folder / "run")
        (run_folder,) = Path("models").iterdir()
        yield RunDirectory(run_folder)


def test_the_training_log_has_each_epoch_once(stopped_run: RunDirectory) -> None:
    with stopped_run.training_log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, EPOCHS + 1))
    assert all(float(row["step_ms"]) > 0 and float(row["blocked_seconds"]) >= 0 for row in rows)


def test_tensorboard_has_each_point_and_each_image_once(stopped_run: RunDirectory) -> None:
    (path,) = stopped_run.logs_folder.glob("events.out.tfevents.*")
    values = [(event.step, value) for event in EventFileLoader(str(path)).Load() for value in event.summary.value]
    points = Counter((value.tag, step) for step, value in values)
    assert set(points.values()) == {1}
    epoch_tags = [*(f"{one.part}/{one.scalar}" for one in FIGURES.all), "train/learning_rate", *TIME_SCALARS]
    expected = {(tag, epoch) for tag in epoch_tags for epoch in range(1, EPOCHS + 1)}
    expected |= {(tag, step) for tag in STEP_TAGS for step in VALIDATED}
    images = {point for point in points if point[0].startswith("attention")}
    assert set(points) - images == expected
    assert sorted({epoch for _, epoch in images}) == DRAWN
    assert len(images) == len(DRAWN) * len(list(stopped_run.attention_folder(2).glob("*.png")))


def test_the_run_page_has_each_epoch_each_validation_and_each_session_once(stopped_run: RunDirectory) -> None:
    page = read((stopped_run.folder / "report.html").read_text(encoding="utf-8"))
    assert page.values("data-epoch") == [str(epoch) for epoch in range(EPOCHS, 0, -1)]
    assert page.values("data-step") == [str(step) for step in reversed(VALIDATED)]
    assert page.values("data-session") == [str(number) for number in range(1, len(STOPS) + 2)]


def wandb_files(run: RunDirectory) -> list[Path]:
    """Return W&B's files of a run in the order in which they were begun."""
    return sorted(run.logs_folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)


def points_at_wandb(path: Path) -> list[dict[str, Any]]:
    found = [record.history for record in records_in(path) if record.HasField("history")]
    return [{"/".join(i.nested_key): json.loads(i.value_json) for i in history.item} for history in found]


def test_wandb_has_each_point_once_in_files_of_one_run_that_are_sent_one_after_the_other(
    stopped_run: RunDirectory,
) -> None:
    files = wandb_files(stopped_run)
    assert len(files) == len(STOPS) + 1
    assert len({path.name for path in files}) == 1, "one id"
    points = [point for path in files for point in points_at_wandb(path)]
    assert [point["_step"] for point in points] == list(range(EPOCHS + len(VALIDATED)))
    assert [point["global_step"] for point in points] == [2, 3, 4, 6, 6]
    with stopped_run.training_log.open(newline="") as file:
        logged = [(float(row["train_loss"]), float(row["val_eer"])) for row in csv.DictReader(file)]
    assert [(point["train/loss"], point["val/eer"]) for point in points if "train/loss" in point] == logged
    assert [point["global_step"] for point in points if "val_step/eer" in point] == VALIDATED


def test_every_checkpoint_names_the_wandb_run(stopped_run: RunDirectory) -> None:
    names = set()
    for path in stopped_run.folder.glob("checkpoint_*.pth"):
        record = examine(path)
        assert isinstance(record, CheckpointRecord)
        payload = load_payload(path)
        names.add(tuple(payload[key] for key in ("wandb_run_id", "wandb_run_name", "wandb_project")))
        assert record.metadata["wandb_run_id"] == payload["wandb_run_id"]
    ((run_id, name, project),) = names
    assert (name, project) == ("stopped", "bonafide")
    assert wandb_files(stopped_run)[0].name == f"run-{run_id}.wandb"


def test_points_that_a_kill_took_from_a_file_are_handed_over_anew(stopped_run: RunDirectory, tmp_path: Path) -> None:
    (file, *_) = [path for path in wandb_files(stopped_run) if points_in_file(path)]
    run_id = file.stem.removeprefix("run-")
    copy = tmp_path / "wandb" / file.parent.name / file.name
    copy.parent.mkdir(parents=True)
    seen = []
    for size in range(0, file.stat().st_size + 1, file.stat().st_size // 50):
        copy.write_bytes(file.read_bytes()[:size])
        seen.append(next_point([tmp_path], run_id))
    copy.write_bytes(file.read_bytes())
    whole = next_point([tmp_path], run_id)
    assert seen == sorted(seen, key=lambda number: -1 if number is None else number)
    assert seen[0] is None
    assert whole == points_in_file(file)[-1] + 1
    note_first_point(tmp_path, "other", 3)
    assert next_point([tmp_path], "other") == 3, "a process that was killed before W&B had written anything"
