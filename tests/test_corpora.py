"""Corpora: found where they are, and what is missing is said before training starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import soundfile

from utils.corpora import (
    PROTOCOL_FILES,
    PROTOCOLS_FOLDER,
    CorpusPart,
    PartName,
    audio_folder,
    find_corpus,
    find_evaluation_part,
    limit_examples,
)
from utils.corpora.protocols import Protocol, Trial
from utils.errors import UserError

PARTS: tuple[PartName, ...] = ("train", "dev", "eval")


def _make_corpus(folder: Path, suffix: str = ".flac") -> Path:
    """Four utterances a part, two of each class; the files are empty, since nothing here listens."""
    (folder / PROTOCOLS_FOLDER).mkdir(parents=True)
    for part in PARTS:
        audio_folder(folder, part).mkdir(parents=True)
        lines = []
        for number in range(4):
            utterance = f"LA_{part[0].upper()}_{number}"
            lines.append(f"LA_00{number} {utterance} - " + ("- bonafide\n" if number % 2 else "A01 spoof\n"))
            (audio_folder(folder, part) / f"{utterance}{suffix}").touch()
        (folder / PROTOCOLS_FOLDER / PROTOCOL_FILES[part]).write_text("".join(lines))
    return folder


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
@pytest.mark.parametrize("below", ["", "LA"])
def test_the_la_folder_or_its_parent_opens_the_corpus(tmp_path: Path, below: str, suffix: str) -> None:
    folder = _make_corpus(tmp_path / below, suffix)
    corpus = find_corpus(tmp_path)
    assert corpus.folder == folder
    assert [path.name for path in corpus.dev.audio_paths] == [f"LA_D_{number}{suffix}" for number in range(4)]
    assert [trial.utterance for trial in corpus.train.protocol.trials] == [f"LA_T_{number}" for number in range(4)]


def test_the_evaluation_part_is_opened_on_its_own(tmp_path: Path) -> None:
    assert find_evaluation_part(_make_corpus(tmp_path)).name == "eval"


def test_training_does_not_need_the_evaluation_part(tmp_path: Path) -> None:
    (_make_corpus(tmp_path) / PROTOCOLS_FOLDER / PROTOCOL_FILES["eval"]).unlink()
    assert len(find_corpus(tmp_path).dev) == 4


@pytest.mark.parametrize("below", ["", PROTOCOLS_FOLDER, f"LA/{PROTOCOLS_FOLDER}"])
def test_protocols_are_found_in_the_folder_named_or_below_it(tmp_path: Path, below: str) -> None:
    corpus = _make_corpus(tmp_path / "database")
    elsewhere = tmp_path / "elsewhere" / below
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    (corpus / PROTOCOLS_FOLDER).rename(elsewhere)
    found = find_corpus(corpus, protocols_path=tmp_path / "elsewhere")
    assert found.train.protocol.path.parent == elsewhere


def test_files_that_the_protocol_does_not_name_are_ignored(tmp_path: Path) -> None:
    corpus = _make_corpus(tmp_path)
    (audio_folder(corpus, "dev") / "LA_D_enrolment.flac").touch()
    assert len(find_corpus(corpus).dev) == 4


def test_flac_goes_before_wav_of_the_same_utterance(tmp_path: Path) -> None:
    corpus = _make_corpus(tmp_path)
    (audio_folder(corpus, "dev") / "LA_D_0.wav").touch()
    assert find_corpus(corpus).dev.audio_paths[0].name == "LA_D_0.flac"


def test_missing_audio_is_counted_and_named_before_training(tmp_path: Path) -> None:
    corpus = _make_corpus(tmp_path)
    for number in (1, 3):
        (audio_folder(corpus, "dev") / f"LA_D_{number}.flac").unlink()
    with pytest.raises(UserError, match="2 of 4 utterances") as refused:
        find_corpus(corpus)
    assert "LA_D_1, LA_D_3" in str(refused.value)
    assert str(audio_folder(corpus, "dev")) in str(refused.value)


def test_each_audio_folder_is_listed_once_and_no_file_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = _make_corpus(tmp_path)
    listed: list[Path] = []
    asked: list[str] = []
    scandir, stat = os.scandir, os.stat

    def counting_scandir(folder):  # type: ignore[no-untyped-def]
        listed.append(folder)
        return scandir(folder)

    def counting_stat(path, **options):  # type: ignore[no-untyped-def]
        asked.append(str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "scandir", counting_scandir)
    monkeypatch.setattr(os, "stat", counting_stat)
    find_corpus(corpus)
    assert [Path(folder) for folder in listed] == [audio_folder(corpus, "train"), audio_folder(corpus, "dev")]
    assert not [path for path in asked if path.endswith(".flac")]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "an empty folder"),
        (lambda folder: folder.write_text("x"), "a file"),
        (lambda folder: [(folder / name).mkdir(parents=True) for name in "abcdefgh"], "a, b, c, d, e, f and 2 more"),
    ],
)
def test_a_folder_that_is_no_corpus_is_refused_with_what_is_there(tmp_path: Path, make, words: str) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "database"
    make(folder)
    with pytest.raises(UserError, match=f"found {words}:") as refused:
        find_corpus(folder)
    for part in (f"--database_path {folder}", "ASVspoof2019_LA_train/flac", str(folder / "LA"), "--database_path demo"):
        assert part in str(refused.value)


def test_missing_protocols_are_refused_with_the_flag_that_names_them(tmp_path: Path) -> None:
    corpus = _make_corpus(tmp_path)
    (corpus / PROTOCOLS_FOLDER).rename(tmp_path / "protocols")
    with pytest.raises(UserError, match=rf"{PROTOCOL_FILES['train']}.*--protocols_path FOLDER"):
        find_corpus(corpus)
    with pytest.raises(UserError, match=r"--protocols_path .*nowhere has no protocols.*no such folder"):
        find_corpus(corpus, protocols_path=tmp_path / "nowhere")


def test_a_part_without_its_audio_folder_is_refused(tmp_path: Path) -> None:
    corpus = _make_corpus(tmp_path)
    audio_folder(corpus, "dev").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"ASVspoof2019_LA_dev/flac: the audio folder cannot be listed"):
        find_corpus(corpus)


def _part(num_bona_fide: int, num_spoof: int) -> CorpusPart:
    size = num_bona_fide + num_spoof
    is_bona_fide = [index * num_bona_fide // size != (index + 1) * num_bona_fide // size for index in range(size)]
    trials = tuple(Trial("s", f"u{index}", "-" if bona else "A01", bona) for index, bona in enumerate(is_bona_fide))
    paths = tuple(Path(f"u{index}.flac") for index in range(size))
    return CorpusPart("train", Protocol(Path("p.txt"), trials, "0" * 64), paths)


@pytest.mark.parametrize(
    ("num_bona_fide", "num_spoof", "num_examples", "kept_bona_fide", "reason"),
    [
        (10, 90, 20, 2, "in proportion"),
        (10, 90, 100, 10, "all of them"),
        (10, 90, 4, 1, "at least one bona fide"),
        (10, 90, 2, 1, "one of each"),
        (95, 5, 6, 5, "at least one spoof"),
        (1, 1, 2, 1, "the smallest part"),
    ],
)
def test_a_limited_part_keeps_both_classes(
    num_bona_fide: int, num_spoof: int, num_examples: int, kept_bona_fide: int, reason: str
) -> None:
    limited = limit_examples(_part(num_bona_fide, num_spoof), num_examples, seed=1)
    assert len(limited) == num_examples, reason
    assert limited.protocol.num_bona_fide == kept_bona_fide, reason


def test_a_limited_part_keeps_order_files_and_content_hash() -> None:
    part = _part(20, 80)
    limited = limit_examples(part, 30, seed=1)
    positions = [part.protocol.trials.index(trial) for trial in limited.protocol.trials]
    assert positions == sorted(positions)
    assert [path.stem for path in limited.audio_paths] == [trial.utterance for trial in limited.protocol.trials]
    assert limited.protocol.content_sha256 == part.protocol.content_sha256


def test_the_seed_decides_which_examples_are_kept() -> None:
    part = _part(20, 80)
    assert limit_examples(part, 30, seed=1) == limit_examples(part, 30, seed=1)
    assert limit_examples(part, 30, seed=1) != limit_examples(part, 30, seed=2)


@pytest.mark.parametrize("num_examples", [-1, 0, 1, 101])
def test_an_impossible_number_of_examples_is_refused(num_examples: int) -> None:
    with pytest.raises(UserError, match=rf"--num_examples .* from 2 .* to 100 .*found {num_examples}"):
        limit_examples(_part(20, 80), num_examples, seed=1)


def test_a_part_with_fewer_files_than_trials_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="2 trials need as many files, found 0"):
        CorpusPart("train", _part(1, 1).protocol, ())


def test_the_small_real_corpus_opens() -> None:
    default = Path(__file__).parents[2] / "shared" / "corpus-mini"
    folder = Path(os.environ.get("BONAFIDE_CORPUS", default))
    if not folder.is_dir():
        pytest.skip(f"no real corpus: {folder} is not there; set BONAFIDE_CORPUS")
    corpus = find_corpus(folder)
    assert corpus.train.protocol.num_bona_fide > 0
    assert soundfile.info(corpus.train.audio_paths[0]).samplerate > 0
    assert not {trial.utterance for trial in corpus.train.protocol.trials} & {
        trial.utterance for trial in corpus.dev.protocol.trials
    }
