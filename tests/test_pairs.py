"""Batches with each spoof beside its source: nothing lost, nothing twice, the same wherever a run goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from models.build import create_detector
from models.detector import DetectorSettings
from training.checkpoints.history import History, UnfinishedEpoch
from training.data.batches import TrainingBatches
from training.data.pairs import PairedOrder
from training.data.shares import Share
from training.planning.announcements import training_text
from training.settings.options import Options
from training.settings.tasks import DETECTION
from training.state.train_state import TrainState
from utils.corpora import CorpusPart, find_corpus, limit_examples
from utils.corpora.trials import Protocol, Trial, sources_of
from utils.errors import UserError

# How many spoofs each source has, bona fide utterances without spoofs, and spoofs without a source.
KIN: list[tuple[str, Sequence[int], int, int]] = [
    ("as --make_spoofs writes it", [4, 4, 4, 4, 4], 0, 0),
    ("one spoof each", [1, 1, 1], 0, 0),
    ("uneven families", [4, 1, 3, 3, 2], 0, 3),
    ("collected spoofs beside own ones", [2, 2, 2], 4, 9),
    ("more bona fide utterances than spoofs without a source", [2, 2], 7, 3),
    ("all bona fide utterances have spoofs", [3, 3], 0, 5),
]
ANY_KIN = pytest.mark.parametrize(
    ("spoofs", "bona_fide", "others"), [row[1:] for row in KIN], ids=[row[0] for row in KIN]
)


def part_of(spoofs: Sequence[int], bona_fide: int = 0, others: int = 0, folder: Path = Path()) -> CorpusPart:
    """Return a part whose utterances of one kind are far apart: kin is known by `source`, and by nothing else."""
    trials = [Trial("s", f"s{number}", "-", True) for number in range(len(spoofs))]
    trials += [Trial("s", f"x{number}", "A", False, source="elsewhere") for number in range(others)]
    for number, count in enumerate(spoofs):
        trials += [Trial("s", f"s{number}by{one}", "A", False, source=f"s{number}") for one in range(count)]
    trials += [Trial("s", f"b{number}", "-", True) for number in range(bona_fide)]
    paths = tuple(folder / f"{trial.utterance}.wav" for trial in trials)
    return CorpusPart("train", Protocol(folder / "train.csv", tuple(trials), "0" * 64), paths)


def names(part: CorpusPart, batch: Sequence[tuple[int, int]]) -> list[str]:
    return [part.protocol.trials[index].utterance for index, _ in batch]


def without_its_source(batch: Sequence[str]) -> list[str]:
    return [name for name in batch if "by" in name and name.partition("by")[0] not in batch]


@ANY_KIN
@pytest.mark.parametrize("batch_size", [5, 6, 7, 16])
def test_every_utterance_comes_once_and_kin_in_one_batch(
    spoofs: Sequence[int], bona_fide: int, others: int, batch_size: int
) -> None:
    part = part_of(spoofs, bona_fide, others)
    order = PairedOrder(part, batch_size, balanced=False)
    epochs = [order.batches(1, epoch) for epoch in (1, 2, 3)]
    for batches in epochs:
        assert len(batches) == order.num_batches
        assert sorted(chain.from_iterable(batches)) == [(index, 0) for index in range(len(part))]
        assert all(0 < len(batch) <= batch_size for batch in batches)
        assert [without_its_source(names(part, batch)) for batch in batches] == [[]] * len(batches)
    assert epochs[0] == order.batches(1, 1)
    if order.num_batches > 2:
        assert not epochs[0] == epochs[1] == epochs[2], "each epoch has its order"


@ANY_KIN
@pytest.mark.parametrize("batch_size", [2, 4, 10])
def test_balanced_batches_have_as_many_of_each_class_and_each_spoof_beside_its_source(
    spoofs: Sequence[int], bona_fide: int, others: int, batch_size: int
) -> None:
    part = part_of(spoofs, bona_fide, others)
    order = PairedOrder(part, batch_size, balanced=True)
    for epoch in (1, 2):
        batches = order.batches(1, epoch)
        assert len(batches) == order.num_batches
        for batch in batches:
            labels = [part.protocol.trials[index].label for index, _ in batch]
            assert labels == [1, 0] * (len(batch) // 2)
            pairs = list(zip(names(part, batch)[0::2], names(part, batch)[1::2], strict=True))
            assert all(spoof.startswith(f"{source}by") for source, spoof in pairs if "by" in spoof)
        comes = Counter(index for index, _ in chain.from_iterable(batches))
        assert set(comes) == set(range(len(part))), "nobody is forgotten"
        assert {comes[at] for at, trial in enumerate(part.protocol.trials) if "by" in trial.utterance} == {1}
        visits = [visit for batch in batches for visit in batch]
        assert len(visits) == len(set(visits)), "what comes again is seen anew"
        assert all(visit < comes[index] for index, visit in visits)


def test_small_units_fill_what_families_leave_free() -> None:
    order = PairedOrder(part_of([4, 4, 4], bona_fide=3), 6, balanced=False)
    assert sorted(map(len, order.batches(1, 1))) == [6, 6, 6]


def with_audio(part: CorpusPart) -> CorpusPart:
    for number, path in enumerate(part.audio_paths):
        soundfile.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, 70_000), 16_000)
    return part


@pytest.mark.parametrize("balanced", [False, True])
def test_a_run_goes_on_anywhere_with_the_same_bits_and_processes_share_whole_batches(
    balanced: bool, tmp_path: Path
) -> None:
    part = with_audio(part_of([2, 1, 2], 2, 2, tmp_path))

    def paired(num_workers: int = 0) -> TrainingBatches:
        return TrainingBatches(
            part, batch_size=4, seed=1, balanced=balanced, paired=True, crop="random", num_workers=num_workers
        )

    whole = list(paired().batches(2))
    assert len(whole) == paired().num_batches_per_epoch >= 3
    with_workers = paired(num_workers=2)
    rest = list(with_workers.batches(2, first_batch=1))
    with_workers.close()
    shared = [list(paired().steps(2, 1, Share(index, 2, 2))) for index in range(2)]
    together = [batch for steps in zip(*shared, strict=True) for step in steps for batch in step.batches]
    for found in (rest, together):
        assert len(found) == len(whole) - 1
        for one, other in zip(found, whole[1:], strict=True):
            assert torch.equal(one.indices, other.indices) and torch.equal(one.waveforms, other.waveforms)


REFUSED: list[tuple[str, CorpusPart, int, bool, str]] = [
    (
        "no column",
        replace(
            part_of([]), protocol=Protocol(Path("t.csv"), (Trial("s", "a", "A", False),), ""), audio_paths=(Path(),)
        ),
        16,
        False,
        "--pair_batches has no pairs in t.csv: it has no column `source` that names the bona fide utterance of a "
        "spoof; --make_spoofs writes such a corpus",
    ),
    (
        "a column of another meaning",
        part_of([], bona_fide=1, others=1),
        16,
        False,
        "its column `source` names no bona fide utterance of this part (found elsewhere)",
    ),
    (
        "a batch too small",
        part_of([1, 4]),
        4,
        False,
        "--batch_size 4 does not hold s1 and its 4 spoofs: pass --batch_size 5 or more, or --balanced_batches",
    ),
    (
        "nobody to stand beside",
        part_of([1], bona_fide=2),
        4,
        True,
        "2 bona fide utterances of train.csv have no spoof, and there is none without a source to stand beside them "
        "(b0, b1)",
    ),
]


@pytest.mark.parametrize(
    ("part", "batch_size", "balanced", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_cannot_be_paired_is_refused(part: CorpusPart, batch_size: int, balanced: bool, words: str) -> None:
    with pytest.raises(UserError) as refused:
        PairedOrder(part, batch_size, balanced=balanced)
    assert words in str(refused.value)


def test_what_is_paired_is_told() -> None:
    assert PairedOrder(part_of([2, 1], 1, 2), 4, balanced=False).told == (
        "pairs: 3 spoofs, each in one batch with its source (2 sources), 2 spoofs without one, "
        "1 bona fide without spoofs"
    )


def write_tables(folder: Path) -> None:
    """Write a corpus of one table without speakers: twelve sources, each with two spoofs."""
    rows = []
    for number in range(12):
        rows.append(f"a/s{number}.wav,bonafide,")
        rows += [f"{vocoder}/s{number}.wav,spoof,a/s{number}.wav" for vocoder in ("v", "w")]
    for row in rows:
        path = folder / row.partition(",")[0]
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.zeros(10), 16_000)
    (folder / "all.csv").write_text("\n".join(["path,label,source", *rows]) + "\n")


def test_a_table_that_is_divided_keeps_spoofs_and_sources_together(tmp_path: Path) -> None:
    """Speakers are not known: each utterance would be a speaker of its own, and kin stand in both parts."""
    write_tables(tmp_path)
    corpus = find_corpus(tmp_path)
    for part in (corpus.train, corpus.dev):
        sources = sources_of(part.protocol.trials)
        assert [sources[at] is None for at, trial in enumerate(part.protocol.trials)] == [
            bool(trial.is_bona_fide) for trial in part.protocol.trials
        ]


def test_fewer_examples_are_whole_families(tmp_path: Path) -> None:
    write_tables(tmp_path)
    train = find_corpus(tmp_path).train
    for count in (2, 7, 9):
        some = limit_examples(train, count, seed=1, with_sources=True)
        assert len(some) == count
        assert sum(source is not None for source in sources_of(some.protocol.trials)) == some.protocol.num_spoof > 0
    assert limit_examples(train, 9, 1, with_sources=True) != limit_examples(train, 9, 2, with_sources=True)


@pytest.mark.parametrize(
    ("model_type", "is_paired", "is_told"),
    [("lcnn", True, True), ("lcnn", False, False), ("aasist_l", True, True), ("ssl_mean", True, False)],
)
def test_what_normalises_by_the_batch_is_told_that_pairs_spoil_it(
    model_type: str, is_paired: bool, is_told: bool
) -> None:
    options = Options(model_type=model_type, pair_batches=is_paired, ssl_model="compact" if "ssl" in model_type else "")
    history = History(DETECTION.figures, UnfinishedEpoch(1), (("0123456789abcdef", 0),))
    state = TrainState(
        {"model": create_detector(DetectorSettings(model_type=model_type, ssl_model=options.ssl_model))},
        {},
        {},
        history,
    )
    said = training_text(options, state, {"device": "cpu", "num_threads": 1})
    assert ("[NOTE] --pair_batches" in said) == is_told
    assert f"Training {model_type} (" in said
