"""What a run's past, and the size of what it scores, cost outside steps: page, save, curves, survey, --eval, workers.

    OMP_NUM_THREADS=2 python -m benchmarks.growth [WHAT ...]

WHAT is `history`, `folder`, `eval` or `workers`; all of them if none is named. What would need a detector, audio or a
disk of checkpoints is made small, so that what is left is the program's own part: a net of a few weights, checkpoints
of a few kB, scores that are there at once, and audio of no samples.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from benchmarks.measuring import machine_text
from training.checkpoints.history import EpochMetrics, EpochTime, History, StepMetrics, UnfinishedEpoch
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.sealed_file import write_sealed
from training.data.loading import Batch, BatchDataset, BatchKey, BatchReader
from training.evaluation import scoring
from training.evaluation.origin import Origin
from training.evaluation.score_layouts import ScoreLayout
from training.evaluation.subject import Subject
from training.reports.csv_table import CsvTable
from training.reports.page.writing import RunPage
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
from utils.audio.waveforms import Waveform
from utils.corpora import CorpusPart
from utils.corpora.trials import Protocol, Trial
from utils.interruption import StopRequest

PASTS = ((10, 100), (10, 10_000), (10, 100_000), (1_000, 0), (1_000, 100_000))
"""Epochs, and validations within them."""
CHECKPOINTS = (10, 100, 1_000)
TRIALS = (20_000, 600_000, 2_000_000)
PARTS = (10_000, 300_000, 1_000_000)
WORKERS = 2
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
    print("processor ms of the loop's thread       a save   writer's part   a validation   page   its MB   CSV")
    for epochs, validations in PASTS:
        history = history_of(epochs, validations)
        run = RunDirectory(folder / f"models/{epochs}_{validations}")
        run.folder.mkdir(parents=True)
        held, written = _of_a_save(run, history)
        story = Story(OPTIONS, history, moment=Moment.STEP_VALIDATED)
        curves = TensorBoardFile(replace(run, folder=folder / f"logs/{epochs}_{validations}"))
        told = seconds_of(lambda curves=curves, story=story: curves.tell(story))
        page = seconds_of(lambda run=run, story=story: RunPage(run).tell(replace(story, moment=Moment.EPOCH_DRAWN)))
        table, begun = CsvTable(run.training_log), replace(story, moment=Moment.EPOCH_COMPLETED)
        rows = seconds_of(lambda table=table, begun=begun: table.tell(begun))
        print(
            f"  {epochs:5,} epochs, {validations:7,} validations {held * 1e3:10.1f} {written * 1e3:12.0f} "
            f"{told * 1e3:13.1f} {page * 1e3:11.0f} {run.report.stat().st_size / 1e6:7.2f} {rows * 1e3:6.1f}",
            flush=True,
        )


def _of_a_save(run: RunDirectory, history: History) -> tuple[float, float]:
    """Return for how long the loop's thread, and the writer's, are busy with a save, in seconds."""
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
    return statistics.median(held[1:]), statistics.median(writing[1:])


class _OneName:
    def file_name(self, _: CheckpointRecord) -> str:
        return "checkpoint.pth"


def show_folder(folder: Path) -> None:
    """Print what is done after each save, and for the page, in a folder with many checkpoints."""
    print("\nprocessor ms, by checkpoints in the folder      what follows a save   page   its MB")
    history = history_of(max(CHECKPOINTS), 0)
    for number in CHECKPOINTS:
        run = RunDirectory(folder / f"models/of_{number}")
        run.folder.mkdir(parents=True)
        for row in history.epochs[:number]:
            record = _record(row, history, number)
            with run.epoch_checkpoint(row.epoch).open("w+b") as file:
                write_sealed(file, lambda writer: torch.save({"epoch": 1}, writer), record.as_dict())
        newest = survey_folder(run.folder).checkpoints[-1]
        committer = Committer(CheckpointStore(run, cast(Any, _OneName())), RetentionPolicy())
        after = seconds_of(lambda: committer._prune(newest.path, newest))
        past = history_of(min(10, number), 0)
        story, page = Story(OPTIONS, past, moment=Moment.EPOCH_DRAWN), RunPage(run)
        shown = seconds_of(lambda: page.tell(story))
        size = run.report.stat().st_size / 1e6
        print(f"  {number:5,} {after * 1e3:53.1f} {shown * 1e3:12.0f} {size:7.2f}", flush=True)


def _record(row: EpochMetrics, history: History, number: int) -> CheckpointRecord:
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


def part_of(number: int) -> CorpusPart:
    """Return a part as large as this, whose audio is nowhere."""
    names = [f"LA_T_{at:07d}" for at in range(number)]
    trials = tuple(Trial(f"LA_{at % 107:04d}", name, "-", at % 10 == 0) for at, name in enumerate(names))
    paths = tuple(Path(f"/data/LA/ASVspoof2019_LA_train/flac/{name}.flac") for name in names)
    return CorpusPart("train", Protocol(Path("protocol.txt"), trials, "0" * 64), paths)


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


def _nothing(_: Waveform, __: int, ___: str, ____: int = 0) -> Waveform:
    return np.zeros(1, dtype=np.float32)


def show_workers(sizes: tuple[int, ...] = PARTS) -> None:
    """Print the memory of worker processes when they have seen every trial of a part once, in a random order."""
    print(f"\nMiB of each of {WORKERS} workers after an epoch, by trials          at its start            after it")
    print(f"{'':<58}USS     PSS       USS     PSS")
    for number in sizes:
        part = part_of(number)
        order = torch.randperm(number, generator=torch.Generator().manual_seed(1)).tolist()
        keys = [BatchKey(1, tuple(order[at : at + 64])) for at in range(0, number, 64)]
        with patch("training.data.loading.read_waveform", lambda _: np.zeros(1, dtype=np.float32)):
            reader = BatchReader(BatchDataset(part, _nothing), WORKERS, False)
            batches = reader.read(keys)
            next(batches)
            first = _memory_of_workers(reader)
            for _ in batches:
                pass
            last = _memory_of_workers(reader)
            reader.close()
        print(f"  {number:9,} {first[0]:50.0f} {first[1]:7.0f} {last[0]:9.0f} {last[1]:7.0f}", flush=True)
        del part, reader, batches
        gc.collect()


def _memory_of_workers(reader: BatchReader) -> tuple[float, float]:
    """Return the mean over workers of what is theirs alone, and of their share of all, in MiB (Linux)."""
    own, shared = [], []
    for worker in cast(Any, reader)._iterator._workers:
        lines = Path(f"/proc/{worker.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        own.append(kib["Private_Clean"] + kib["Private_Dirty"])
        shared.append(kib["Pss"])
    return statistics.mean(own) / 1024, statistics.mean(shared) / 1024


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
