"""A corpus without spoofs, as for speech synthesis: a vocoder trains on it, a detector refuses it in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from main import main
from tests.small_audio import write_sounds
from tests.test_class_folders import write_classes
from tests.test_corpus_tables import write_table
from tests.test_vocoder import narrow_vocoder, refusal, train
from utils.corpora import find_corpus, find_evaluation_part
from utils.corpora.division import development_positions
from utils.corpora.trials import UNKNOWN, Trial
from utils.errors import UserError

NAMES = [f"wavs/LJ{number}.wav" for number in range(10)]
BOTH = [*[(name, "bonafide", "a") for name in NAMES[:4]], *[(name, "spoof", "b") for name in NAMES[4:6]]]


def rows(*speakers: str) -> list[tuple[str, ...]]:
    return [(name, "bonafide", *speakers[number % len(speakers) :][:1]) for number, name in enumerate(NAMES)]


def tables(place: Path) -> None:
    write_table(place / "train.csv", rows("a")[:6])
    write_table(place / "dev.csv", rows("a")[6:])


def one_table_of_one_speaker(place: Path) -> None:
    write_table(place / "metadata.csv", rows("LJ"))


def one_table_of_speakers(place: Path) -> None:
    write_table(place / "metadata.csv", rows("p225", "p226", "p227", "p228", "p229"))


def one_table_without_speakers(place: Path) -> None:
    write_table(place / "metadata.csv", [row[:2] for row in rows("x")], "path,label")


def one_table_that_names_parts(place: Path) -> None:
    parts = ["train"] * 6 + ["dev"] * 3 + ["test"]
    write_table(
        place / "all.csv", [(*row[:2], part) for row, part in zip(rows("x"), parts, strict=True)], "path,label,split"
    )


def no_spoofs_for_validation(place: Path) -> None:
    write_table(place / "train.csv", BOTH)
    write_table(place / "dev.csv", rows("c")[6:])


def one_folder(place: Path) -> None:
    write_sounds(place / "bonafide", [f"{n}.wav" for n in range(10)])


def folders_of_parts_without_spoofs_for_validation(place: Path) -> None:
    write_classes(place / "train", count=4)
    write_sounds(place / "dev" / "Real", [f"{n}.wav" for n in range(3)])


# (how it is written; how many bona fide utterances are trained on, how many validated on)
CORPORA: list[tuple[Callable[[Path], None], int, int]] = [
    (tables, 6, 4),
    (one_table_of_one_speaker, 8, 2),
    (one_table_of_speakers, 8, 2),
    (one_table_without_speakers, 8, 2),
    (one_table_that_names_parts, 6, 3),
    (no_spoofs_for_validation, 4, 4),
    (one_folder, 8, 2),
    (folders_of_parts_without_spoofs_for_validation, 4, 3),
]


@pytest.mark.parametrize(("write", "num_train", "num_dev"), CORPORA)
def test_it_is_opened_where_no_spoofs_are_needed_and_refused_where_they_are(
    write: Callable[[Path], None], num_train: int, num_dev: int, tmp_path: Path
) -> None:
    write_sounds(tmp_path, NAMES)
    write(tmp_path)
    corpus = find_corpus(tmp_path, needs_spoofs=False)
    assert [part.protocol.num_bona_fide for part in (corpus.train, corpus.dev)] == [num_train, num_dev]
    assert not set(corpus.train.audio_paths) & set(corpus.dev.audio_paths)
    assert len(find_evaluation_part(tmp_path, needs_spoofs=False)) > 0
    with pytest.raises(UserError, match=r"needs both bonafide and spoof lines|bonafide/ and spoof/; found bonafide"):
        find_corpus(tmp_path)


def test_of_one_speaker_utterances_are_divided_only_where_there_are_no_spoofs() -> None:
    speech = [Trial("LJ", str(number), UNKNOWN, True) for number in range(10)]
    assert len(development_positions(speech)) == 2
    assert development_positions([*speech, Trial("LJ", "x", "A01", False)]) == []
    assert development_positions([]) == []


def test_a_vocoder_trains_on_it_and_is_evaluated_and_a_detector_says_why_not(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = workplace / "LJSpeech"
    write_sounds(corpus, NAMES)
    one_table_of_one_speaker(corpus)
    with narrow_vocoder():
        assert train(corpus, "--num_epochs", "1") == 0
    assert "Data: 8 training and 2 validation utterances" in capsys.readouterr().out
    assert main(["--eval", "--model_path", "models/hifigan_small_1_2_0.0002", "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["mel"] == 2
    assert main(["--model_type", "lcnn", "--database_path", str(corpus)]) == 1
    told = refusal(capsys)
    assert "found 8 bonafide and 0 spoof in its 8 lines" in told
    assert "a vocoder (--model_type hifigan) is trained on bona fide speech alone" in told


@pytest.mark.parametrize(
    ("label", "told"),
    [("bonafide", "a vocoder (--model_type hifigan) is trained on bona fide speech alone."), ("spoof", "trial (1).")],
)
def test_the_check_of_a_corpus_says_what_can_be_trained_on_it(
    label: str, told: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sounds(workplace / "corpus", NAMES)
    for part in ("train", "dev"):
        write_table(workplace / "corpus" / f"{part}.csv", [(name, label, "a") for name in NAMES])
    assert main(["--check_data", "corpus"]) == 1
    assert capsys.readouterr().out.rstrip().endswith(told)
