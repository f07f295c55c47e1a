"""Every log of a run that was stopped five times holds each epoch and each validation exactly once."""

from __future__ import annotations

import csv
import os
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from main import main
from tests.conftest import SMALL_RUN, write_corpus
from training import heatmaps
from training.heatmap_figures import layer_importance_figure
from training.logs.curves import EPOCH_SCALARS, STEP_SCALARS, TIME_SCALARS
from training.runs.directory import RunDirectory
from training.task import DetectionTask

EPOCHS, VAL_INTERVAL = 3, 3
STOPS = (1, 2, 3, 4, 5)  # of 6 steps: after the last of an epoch too, and where a validation is due
VALIDATED = [3, 6]
DRAWN = [2]
FLAGS = ["--num_epochs", str(EPOCHS), "--val_interval", str(VAL_INTERVAL), "--auto_resume"]
DRAWING = ["--visualize_attention", "--viz_samples", "2", "--viz_frequency", "2"]


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    """A run that SIGTERM stopped after each of STOPS and that was resumed each time, in its own folder."""
    folder = tmp_path_factory.mktemp("stopped")
    corpus = write_corpus(folder / "corpus", train=8, dev=4)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        steps, original = count(1), DetectionTask.training_step

        def step_and_stop(*arguments: object) -> object:
            result = original(*arguments)  # type: ignore[arg-type]
            if next(steps) in STOPS:
                os.kill(os.getpid(), signal.SIGTERM)
            return result

        patched.setattr(DetectionTask, "training_step", step_and_stop)
        patched.setattr(heatmaps, "_CLASS_FIGURES", {"layer_importance": layer_importance_figure})  # the quickest
        patched.setattr(heatmaps, "DOTS_PER_INCH", 40)
        typed = [*SMALL_RUN, "--database_path", str(corpus), *FLAGS, *DRAWING]
        codes = [main(typed) for _ in range(len(STOPS) + 1)]
        assert codes == [143] * len(STOPS) + [0]
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
    epoch_tags = [*EPOCH_SCALARS, *TIME_SCALARS]
    expected = {(tag, epoch) for tag in epoch_tags for epoch in range(1, EPOCHS + 1)}
    expected |= {(tag, step) for tag in STEP_SCALARS for step in VALIDATED}
    images = {point for point in points if point[0].startswith("attention")}
    assert set(points) - images == expected
    assert sorted({epoch for _, epoch in images}) == DRAWN
    assert len(images) == len(DRAWN) * len(list(stopped_run.attention_folder(2).glob("*.png")))
