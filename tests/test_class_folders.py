"""Corpora with a folder for each class: which files count, and which parts they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_audio import write_sounds
from utils.corpora import find_corpus, find_evaluation_part
from utils.errors import UserError


def write_classes(top: Path, count: int = 10) -> None:
    write_sounds(top / "bonafide", [f"ann/{n}.wav" for n in range(count)])
    write_sounds(top / "spoof", [f"tts/{n}.flac" for n in range(count - 1)] + ["x.wav"])


def test_two_folders_are_divided_by_a_hash_of_the_names(tmp_path: Path) -> None:
    write_classes(tmp_path)
    corpus = find_corpus(tmp_path)
    assert corpus.layout == "class-folder"
    assert "a fifth of the files of each class" in corpus.division
    for part, count in ((corpus.train, 8), (corpus.dev, 2)):
        assert (part.protocol.num_bona_fide, part.protocol.num_spoof) == (count, count)
    assert not set(corpus.train.audio_paths) & set(corpus.dev.audio_paths)


def test_an_utterance_is_a_path_and_the_folder_below_spoof_its_attack(tmp_path: Path) -> None:
    write_classes(tmp_path)
    found = [*find_corpus(tmp_path).train.protocol.trials, *find_corpus(tmp_path).dev.protocol.trials]
    trials = {trial.utterance: trial for trial in found}
    assert (trials["spoof/tts/3"].attack, trials["spoof/tts/3"].label) == ("tts", 0)
    assert (trials["spoof/x"].attack, trials["spoof/x"].label) == ("-", 0)
    assert (trials["bonafide/ann/3"].attack, trials["bonafide/ann/3"].label) == ("-", 1)


@pytest.mark.parametrize(
    ("train", "dev", "evaluation"),
    [("train", "dev", "eval"), ("training", "val", "test"), ("Train", "VALIDATION", "Test")],
)
def test_folders_for_the_parts_go_before_a_division(tmp_path: Path, train: str, dev: str, evaluation: str) -> None:
    write_classes(tmp_path / train)
    write_classes(tmp_path / dev, count=3)
    write_classes(tmp_path / evaluation, count=2)
    corpus = find_corpus(tmp_path)
    assert (len(corpus.train), len(corpus.dev), len(find_evaluation_part(tmp_path))) == (20, 6, 4)
    assert corpus.division == "one folder for each part"


def test_a_training_folder_alone_is_divided_and_the_evaluation_folder_left_alone(tmp_path: Path) -> None:
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "eval", count=2)
    corpus = find_corpus(tmp_path)
    assert (len(corpus.train), len(corpus.dev), len(find_evaluation_part(tmp_path))) == (16, 4, 4)


def test_all_of_a_corpus_that_names_no_parts_may_be_evaluated_on(tmp_path: Path) -> None:
    write_classes(tmp_path)
    assert len(find_evaluation_part(tmp_path)) == 20


def test_a_file_that_is_added_changes_the_content_hash(tmp_path: Path) -> None:
    write_classes(tmp_path)
    before = find_corpus(tmp_path).train.protocol.content_sha256
    assert find_corpus(tmp_path).train.protocol.content_sha256 == before
    write_sounds(tmp_path / "spoof", [f"new{n}.wav" for n in range(9)])
    assert find_corpus(tmp_path).train.protocol.content_sha256 != before


def test_files_that_are_no_audio_are_ignored(tmp_path: Path) -> None:
    write_classes(tmp_path)
    (tmp_path / "spoof" / "notes.txt").write_text("x")
    (tmp_path / "spoof" / "._x.wav").write_bytes(b"what a Mac leaves beside x.wav on other disks")
    assert len(find_corpus(tmp_path).train) == 16


def test_audio_of_every_format_that_can_be_read_counts(tmp_path: Path) -> None:
    write_classes(tmp_path)
    write_sounds(tmp_path / "spoof", ["y.aiff", "z.au"])
    assert len(find_corpus(tmp_path).train) + len(find_corpus(tmp_path).dev) == 22


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path)
    write_sounds(tmp_path / "spoof", ["x.flac"])
    with pytest.raises(UserError, match=r"spoof/x\.wav: an utterance may have only one file"):
        find_corpus(tmp_path)


def test_one_class_alone_is_no_corpus(tmp_path: Path) -> None:
    write_sounds(tmp_path / "bonafide", ["a.wav"])
    with pytest.raises(UserError, match=r"looked in .*bonafide/ and spoof/; found bonafide"):
        find_corpus(tmp_path)


def test_folders_of_other_words_beside_those_of_the_challenges_are_told(tmp_path: Path) -> None:
    write_classes(tmp_path)
    write_sounds(tmp_path / "fake", ["1.wav"])
    corpus = find_corpus(tmp_path)
    assert corpus.train.protocol.notes == ("not used: the folders fake, since bonafide and spoof are there",)
    assert len(corpus.train) + len(corpus.dev) == 20
