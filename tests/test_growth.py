"""What a run does again and again costs no more for its past, counted in what it looks at; nothing is lost by it."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import pytest
import torch

from tests.records import metrics, record, validated, write_checkpoint
from tests.small_state import FACTS, OPTIONS, small_state
from training.checkpoints.frozen_reference import FROZEN_KIND, FrozenReference
from training.checkpoints.history import History, UnfinishedEpoch
from training.checkpoints.record import FORMAT, Kind
from training.checkpoints.rows import EpochMetrics, EpochTime, StepMetrics, best_epoch
from training.checkpoints.sealed_file import write_sealed
from training.data.batches import Batch
from training.data.loading import BatchDataset, BatchKey, BatchReader
from training.data.shares import StepBatches
from training.evaluation import scoring
from training.evaluation.partial_scores import PartialScores
from training.reports import points
from training.reports.csv_table import CsvTable, csv_rows
from training.reports.points import Curves
from training.reports.story import Moment, Story
from training.reports.tensorboard_file import TensorBoardFile
from training.runs import known_files
from training.runs.directory import RunDirectory
from training.runs.known_files import KnownFiles
from training.runs.survey import survey_folder
from training.saving.background_saving import BackgroundSaver
from training.saving.store import save_checkpoint
from training.settings.tasks import DETECTION
from training.state.snapshot import take_snapshot
from utils.corpora import CorpusPart
from utils.corpora.trials import Protocol, Trial
from utils.interruption import StopRequest
from utils.ranks import Alone
from utils.text_column import TextColumn

RUN = RunDirectory(Path("models/run"))


def long_history(epochs: int, validations: int) -> History:
    """Return a past of 10 steps an epoch; epoch 7 is the best, and one validation is far above all others."""
    steps = sorted({1 + number * 10 * epochs // max(1, validations) for number in range(validations)})
    return History(
        DETECTION.figures,
        UnfinishedEpoch(10),
        (("run-a", 0),),
        epoch=epochs,
        step=10 * epochs,
        epochs=[metrics(number, val_eer=2.0 if number == 7 else 5 + number % 3) for number in range(1, epochs + 1)],
        validations=[validated(step, step // 10, val_eer=49.5 if step == 61 else 5.0) for step in steps],
        validation_times=[1_790_000_000.0 + step for step in steps],
        times=[EpochTime(number, 1_790_000_000.0 + number, 12.5) for number in range(1, epochs + 1)],
    )


def counting(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> list[Any]:
    """Return a list that gets the first argument of each call of this function from now on."""
    seen, real = [], getattr(place, name)

    def counted(first: Any, *others: Any, **named: Any) -> Any:
        seen.append(first)
        return real(first, *others, **named)

    monkeypatch.setattr(place, name, counted)
    return seen


def test_the_loop_is_not_held_for_rows_of_the_past_and_the_file_has_the_ones_of_that_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = small_state()
    state.history = long_history(20, 50)
    before = state.to_payload()
    made = [counting(monkeypatch, kind, "as_dict") for kind in (EpochMetrics, StepMetrics)]
    held: list[tuple[int, ...]] = []

    def commit(payload: Any, record: Any, _: object) -> None:
        later.append(payload)

    later: list[Any] = []
    saver = BackgroundSaver(commit, state.networks["model"].parameters)
    saver.begin(*take_snapshot(state, FACTS, Kind.EPOCH))
    held.append(tuple(map(len, made)))
    saver.close()
    state.history.validations.append(validated(201, 20))
    state.history.validation_times.append(0.0)
    save_checkpoint(tmp_path / "a.pth", later[0], take_snapshot(state, FACTS, Kind.EPOCH)[1])
    assert held == [(0, 0)]
    stored = torch.load(tmp_path / "a.pth", weights_only=True)
    for name in ("history", "validations", "times", "validation_times"):
        assert stored[name] == before[name]
    assert len(stored["validations"]) == 50


@pytest.mark.parametrize("lost", [[], [7], [7, 3]])
def test_the_best_epoch_is_that_of_all_epochs_however_often_it_was_asked_for(lost: list[int]) -> None:
    history = long_history(0, 0)
    for number, row in enumerate(long_history(30, 0).epochs, start=1):
        history.epochs.append(row)
        if number == 20:
            history.lost_epochs += lost
        if number == 25 and lost:
            history.lost_epochs.remove(7)
        usable = [one for one in history.epochs if one.epoch not in history.lost_epochs]
        assert history.best == best_epoch(usable, history.figures)


def test_a_validation_makes_its_own_points_alone(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = long_history(20, 50)
    board = TensorBoardFile(RUN)
    board.tell(Story(OPTIONS, history))
    made = [counting(monkeypatch, points, name) for name in ("EpochPoint", "StepPoint")]
    history.validations.append(validated(201, 20))
    history.validation_times.append(0.0)
    board.tell(Story(OPTIONS, history, moment=Moment.STEP_VALIDATED))
    board.close()
    assert list(map(len, made)) == [0, 1]


@pytest.mark.parametrize(("epochs", "validations"), [(0, 0), (0, 3), (4, 0), (4, 9), (4, 40), (9, 5)])
def test_the_points_from_any_place_on_are_the_rest_of_all_points(epochs: int, validations: int) -> None:
    curves = Curves.of(long_history(epochs, validations) if epochs else long_history(1, validations))
    every = list(curves.in_order())
    assert len(every) == len(curves)
    for first in range(len(every) + 2):
        assert list(curves.in_order(first)) == every[first:]


def test_a_row_of_the_training_log_is_made_once_and_the_log_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, table = long_history(20, 0), CsvTable(tmp_path / "log.csv")
    made = counting(monkeypatch, EpochMetrics, "as_dict")
    for number in range(1, 21):
        part = History(history.figures, history.under_way, history.lineage, epochs=history.epochs[:number])
        part.times = history.times[:number]
        table.tell(Story(OPTIONS, part))
    assert len(made) == 20
    assert (tmp_path / "log.csv").read_text().splitlines(keepends=True)[1:] == csv_rows(history)


def test_a_survey_opens_only_what_changed(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_files, "SETTLED_NS", 0)
    for number in (1, 2, 3):
        write_checkpoint(RUN.epoch_checkpoint(number), record("", number))
    known = KnownFiles()
    first = survey_folder(RUN.folder, known)
    opened = counting(monkeypatch, known_files, "examine")
    assert survey_folder(RUN.folder, known) == first
    assert opened == []
    RUN.epoch_checkpoint(2).unlink()
    write_checkpoint(RUN.epoch_checkpoint(3), record("", 3, run="run-b"))
    RUN.last_checkpoint.hardlink_to(RUN.epoch_checkpoint(1))
    assert survey_folder(RUN.folder, known) == survey_folder(RUN.folder)
    assert {path.name for path in opened[:2]} == {"checkpoint_epoch_1.pth", "checkpoint_epoch_3.pth"}


def test_a_file_that_has_just_been_written_is_read_again(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownFiles()
    write_checkpoint(RUN.epoch_checkpoint(1), record("", 1))
    survey_folder(RUN.folder, known)
    opened = counting(monkeypatch, known_files, "examine")
    survey_folder(RUN.folder, known)
    assert opened == [RUN.epoch_checkpoint(1)]


def test_a_known_checkpoint_whose_frozen_weights_went_is_not_usable(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_files, "SETTLED_NS", 0)
    needed = FrozenReference.of("ab" * 32, 4)
    write_checkpoint(RUN.epoch_checkpoint(1), record("", 1, frozen=needed))
    with (RUN.folder / needed.file).open("w+b") as file:
        stored = {"format": FORMAT, "kind": FROZEN_KIND, "sha256": needed.sha256, "bytes": needed.bytes}
        write_sealed(file, lambda writer: torch.save({}, writer), stored)
    known = KnownFiles()
    assert survey_folder(RUN.folder, known).checkpoints
    opened = counting(monkeypatch, known_files, "examine")
    assert survey_folder(RUN.folder, known).checkpoints
    assert opened == []
    (RUN.folder / needed.file).rename("elsewhere.pth")
    assert survey_folder(RUN.folder, known) == survey_folder(RUN.folder)
    assert not survey_folder(RUN.folder, known).checkpoints


class Names(list[str]):
    """Names that count how many of them were copied out."""

    copied = 0

    def __getitem__(self, place: SupportsIndex | slice) -> Any:
        found = super().__getitem__(place)
        self.copied += len(found) if isinstance(place, slice) else 1
        return found


def part_of(number: int) -> CorpusPart:
    trials = tuple(Trial("s", f"u{at}\udcff", "-", (None, True, False)[at % 3]) for at in range(number))
    paths = tuple(Path(f"/audio/{trial.utterance}.flac") for trial in trials)
    return CorpusPart("eval", Protocol(Path("p.txt"), trials, "0" * 64), paths)


def test_scoring_copies_each_name_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Batches:
        num_batches = 100

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def steps(self, share: object, stop: object, first: int) -> Any:
            for at in range(first, self.num_batches):
                indices = torch.arange(4 * at, 4 * at + 4)
                yield StepBatches.whole([Batch(torch.zeros(4, 1), indices, indices)])

        def close(self) -> None: ...

    monkeypatch.setattr(scoring, "ValidationBatches", Batches)
    monkeypatch.setattr(scoring, "score_waveforms", lambda _, waveforms: [0.5] * len(waveforms))
    names = Names(f"u{at}" for at in range(400))
    gathered = PartialScores(tmp_path / "scores.txt.partial", "of=nothing", names)
    subject: Any = type("Subject", (), {"options": OPTIONS.replaced(batch_size=4), "device": torch.device("cpu")})()
    scores: list[str] = []
    gathered.begin(scores)
    scoring._score_rest(scoring._Batches(subject, part_of(400), Alone(), StopRequest()), gathered, scores, 4)
    assert len(scores) == 400
    assert names.copied == 400


def test_texts_come_back_whatever_they_hold() -> None:
    texts = ["", "LA_T_1", "ü\U0001f50a", "no UTF-8: \udcff", "a\nb\0"]
    column = TextColumn(texts)
    assert [column[place] for place in range(len(column))] == texts
    for place in (-1, 5):
        with pytest.raises(IndexError, match=f"places go from 0 to 4, found {place}"):
            column[place]


def _frozen_objects(waveform: Any, epoch: int, utterance: str, visit: int = 0) -> Any:
    return np.array([gc.get_freeze_count(), epoch, int(utterance[1:-1]), visit], dtype=np.float32)


def test_workers_get_no_object_for_each_trial_and_collect_none_of_their_parents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.data.loading.read_waveform", lambda path: np.zeros(1, dtype=np.float32))
    dataset = BatchDataset(part_of(200), _frozen_objects)
    pickled = pickle.dumps(dataset)
    assert b"Trial" not in pickled
    assert b"Path" not in pickled
    reader = BatchReader(dataset, num_workers=1, pin_memory=False)
    keys: Sequence[BatchKey] = [BatchKey(3, (5, 4, 198), (0, 1, 0))]
    (batch,) = list(reader.read(keys))
    reader.close()
    assert batch.waveforms[:, 1:].tolist() == [[3, 5, 0], [3, 4, 1], [3, 198, 0]]
    assert batch.labels.tolist() == [0, 1, -1]
    assert batch.indices.tolist() == [5, 4, 198]
    assert batch.waveforms[:, 0].min() > 10_000
