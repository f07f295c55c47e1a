"""What a run's past, and the size of what it scores, cost outside steps: page, save, curves, survey, --eval, workers.

    OMP_NUM_THREADS=2 python -m benchmarks.growth [WHAT ...]

WHAT is `history`, `folder`, `eval` or `workers`; all of them if none is named. What would need a detector, audio or a
disk of checkpoints is made small, so that what is left is the program's own part: a net of a few weights, checkpoints
of a few kB, scores that are there at once, and audio of no samples.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import nn

from benchmarks.measuring import machine_text
from benchmarks.worker_memory import part_of, show_workers
from training.checkpoints.history import History, UnfinishedEpoch
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.rows import EpochMetrics, EpochTime, StepMetrics
from training.checkpoints.sealed_file import write_sealed
from training.data.batches import Batch
from training.evaluation import scoring
from training.evaluation.origin import Origin
from training.evaluation.score_layouts import ScoreLayout
from training.evaluation.subject import Subject
from training.reports.csv_table import CsvTable
from training.reports.page.writing import RunPage
from training.reports.reporting import Reporter
from training.reports.story import Moment, Story
from training.reports.tensorboard_file import TensorBoardFile
from training.runs.directory import RunDirectory
from training.runs.retention import RetentionPolicy
from training.runs.survey import survey_folder
from training.saving.background_saving import BackgroundSaver
from training.saving.commit import Committer
from training.saving.store import CheckpointStore
from training.settings.options import Options
from training.settings.tasks import DETECTION
from training.state.snapshot import RunFacts, take_snapshot
from training.state.train_state import Observations, TrainState
from utils.corpora import CorpusPart
from utils.interruption import StopRequest

PASTS = ((10, 100), (10, 10_000), (10, 100_000), (1_000, 0), (1_000, 100_000))
"""Epochs, and validations within them."""
CHECKPOINTS = (10, 100, 1_000)
TRIALS = (20_000, 600_000, 2_000_000)
SETTLED_S = 3.0
"""A file that was written a moment ago may still be changed without a trace in its times, and is read again."""
REPEATS = 3
OPTIONS = Options(num_epochs=2_000, comment="growth")


def seconds_of(action: Callable[[], object]) -> float:
    """Return the median of the processor seconds that this thread is held for, after a first time."""
    action()
    found = []
    for _ in range(REPEATS):
        before = time.thread_time()
        action()
        found.append(time.thread_time() - before)
    return statistics.median(found)


def history_of(epochs: int, validations: int) -> History:
    """Return the past of a run whose validations are spread over its epochs and the half of the next one."""
    steps_per_epoch = 2 * max(1, validations // epochs)
    last = epochs * steps_per_epoch
    draw = random.Random(1)

    def figures() -> dict[str, float]:
        return {"val_loss": draw.random(), "val_acc": 90.0 + draw.random(), "val_eer": 5.0 + draw.random()}

    def of_epoch(number: int) -> EpochMetrics:
        trained = {"train_loss": draw.random(), "train_eer": 9.0 + draw.random()}
        return EpochMetrics(number, number * steps_per_epoch, trained | figures(), 1e-6)

    steps = [1 + number * last // max(1, validations) for number in range(validations)]
    return History(
        DETECTION.figures,
        UnfinishedEpoch(steps_per_epoch, steps_per_epoch // 2),
        (("benchmark", 0),),
        epoch=epochs,
        step=last + steps_per_epoch // 2,
        epochs=[of_epoch(number) for number in range(1, epochs + 1)],
        validations=[StepMetrics(step // steps_per_epoch, step, figures()) for step in steps],
        validation_times=[1_790_000_000.0 + step for step in steps],
        times=[EpochTime(number, 1_790_000_000.0 + number, 12.5) for number in range(1, epochs + 1)],
    )


def state_of(history: History) -> TrainState:
    """Return a state of a few weights with this past."""
    net = nn.Linear(8, 2)
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    return TrainState({"model": net}, {"optimizer": optimizer}, {"scheduler": schedule}, history, Observations({}))


def show_history(folder: Path) -> None:
    """Print what is done after a save, a validation and an epoch, by the length of the past."""
    print(f"{'processor ms of the loop thread':<34}a save (writer)  a validation  CSV  first page   page   its MB")
    for epochs, validations in PASTS:
        history = history_of(epochs, validations)
        run = RunDirectory(folder / f"models/{epochs}_{validations}")
        run.folder.mkdir(parents=True)
        held, written = _of_a_save(run, history)
        curves, table = TensorBoardFile(run), CsvTable(run.training_log)
        (_, told), (_, rows) = (_first_and_next(one, Story(OPTIONS, history)) for one in (curves, table))
        curves.close()
        first, page = _first_and_next(RunPage(run), Story(OPTIONS, history))
        print(
            f"{epochs:6,} epochs, {validations:7,} within {held:14.1f} {written:8.0f} {told:13.1f} {rows:4.1f}"
            f"{first:12.0f} {page:6.0f} {run.report.stat().st_size / 1e6:8.2f}",
            flush=True,
        )


def _first_and_next(reporter: Reporter, story: Story) -> tuple[float, float]:
    """Return the processor ms of telling a past that is new, and once more."""
    before = time.thread_time()
    reporter.tell(story)
    first = time.thread_time() - before
    return 1e3 * first, 1e3 * seconds_of(lambda: reporter.tell(story))


def _of_a_save(run: RunDirectory, history: History) -> tuple[float, float]:
    """Return for how long the loop's thread, and the writer's, are busy with a save, in ms."""
    state, facts = state_of(history), RunFacts(OPTIONS, {}, {}, {"num_threads": 1})
    store = CheckpointStore(run, cast(Any, _OneName()))
    writing: list[float] = []

    def commit(payload: dict[str, Any], record: CheckpointRecord, _: object) -> None:
        before = time.thread_time()
        store.save(payload, record)
        writing.append(time.thread_time() - before)

    saver = BackgroundSaver(commit, state.networks["model"].parameters)

    def save() -> None:
        saver.wait()
        before = time.thread_time()
        saver.begin(*take_snapshot(state, facts, Kind.STEP))
        held.append(time.thread_time() - before)

    held: list[float] = []
    for _ in range(REPEATS + 1):
        save()
    saver.close()
    return 1e3 * statistics.median(held[1:]), 1e3 * statistics.median(writing[1:])


class _OneName:
    def file_name(self, _: CheckpointRecord) -> str:
        return "checkpoint.pth"


def show_folder(folder: Path) -> None:
    """Print what is done after each save, and for the page, in a folder with many checkpoints."""
    print("\nprocessor ms, by checkpoints in the folder      what follows a save   page   its MB")
    for number in CHECKPOINTS:
        after, page, size = _of_a_folder(RunDirectory(folder / f"models/of_{number}"), number)
        print(f"  {number:5,} {after * 1e3:53.1f} {page * 1e3:12.0f} {size / 1e6:7.2f}", flush=True)


def _of_a_folder(run: RunDirectory, number: int) -> tuple[float, float, int]:
    """Return the seconds of what follows a save and of the page, and its bytes, where there are so many checkpoints."""
    history = history_of(number, 0)
    run.folder.mkdir(parents=True)
    for row in history.epochs:
        with run.epoch_checkpoint(row.epoch).open("w+b") as file:
            write_sealed(file, lambda writer: torch.save({"epoch": 1}, writer), _record(row, history).as_dict())
    newest = survey_folder(run.folder).checkpoints[-1]
    time.sleep(SETTLED_S)
    committer = Committer(CheckpointStore(run, cast(Any, _OneName())), RetentionPolicy())
    after = seconds_of(lambda: committer._prune(newest.path, newest))
    story, page = Story(OPTIONS, history_of(10, 0), moment=Moment.EPOCH_DRAWN), RunPage(run)
    return after, seconds_of(lambda: page.tell(story)), run.report.stat().st_size


def _record(row: EpochMetrics, history: History) -> CheckpointRecord:
    return CheckpointRecord(
        path=Path(),
        bytes_on_disk=0,
        kind=Kind.EPOCH,
        lineage=history.lineage,
        epoch=row.epoch,
        step=row.step,
        batches_done=0,
        batches_per_epoch=2,
        learning_rate=1e-6,
        last=row,
        best=history.epochs[0],
        options=OPTIONS,
        data={},
        metadata={"num_threads": 1},
        name=RunDirectory(Path()).epoch_checkpoint(row.epoch).name,
    )


class _Batches:
    """Batches that hold nothing, in the place of ValidationBatches."""

    def __init__(self, part: CorpusPart, *, batch_size: int, **_: object) -> None:
        self._size, self._number = batch_size, len(part)
        self.num_batches = -(-self._number // batch_size)

    def batches(self, first: int) -> Iterator[Batch]:
        for begin in range(first * self._size, self._number, self._size):
            indices = torch.arange(begin, min(begin + self._size, self._number))
            yield Batch(torch.zeros(len(indices), 1), indices, indices)

    def close(self) -> None:
        pass


def show_eval(folder: Path, trials: tuple[int, ...] = TRIALS) -> None:
    """Print what --eval takes beside reading and computing."""
    print(f"\n--eval beside audio and detector: trials, processor s, batches of {OPTIONS.batch_size}")
    subject = Subject((), cast(Any, None), OPTIONS, torch.device("cpu"), cast(Any, None))
    for number in trials:
        part, output = part_of(number), folder / f"scores_{number}.txt"
        with (
            patch.object(scoring, "ValidationBatches", _Batches),
            patch.object(scoring, "score_waveforms", lambda _, waveforms: [0.5] * len(waveforms)),
        ):
            before = time.process_time()
            done = scoring.score_part(
                subject, part, output, ScoreLayout.PLAIN, origin=Origin({}, {}), stop=StopRequest(), quiet=True
            )
            taken = time.process_time() - before
        assert done == number
        print(f"  {number:9,} {taken:8.1f}", flush=True)


def main(*wanted: str) -> None:
    """Print what was asked for."""
    print(machine_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, show in (("history", show_history), ("folder", show_folder), ("eval", show_eval)):
            if not wanted or title in wanted:
                show(folder)
    if not wanted or "workers" in wanted:
        show_workers()


if __name__ == "__main__":
    main(*sys.argv[1:])
