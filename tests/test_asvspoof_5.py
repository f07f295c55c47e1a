"""ASVspoof 5 as it is published: files named .tsv that are divided by spaces and have no header."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_audio import write_sounds
from utils.corpora import find_corpus, find_evaluation_part
from utils.errors import UserError

TRAIN = (
    "T_4850 T_0000000000 F - - - AC3 A05 spoof -\n"
    "T_4800 T_0000000001 M - - - - bonafide bonafide -\n"
    "T_4800 T_0000000002 M - - - AC1 A01 spoof -\n"
)
DEV = "D_0062 D_0000000001 F - - - AC1 A11 spoof -\nD_0461 D_0000000190 M - - - - bonafide bonafide -\n"
EVAL = "E_1607 E_0009538969 M C05 2 E_0009486171 AC1 A26 spoof -\nE_0001 E_0000000002 F - - - - bonafide bonafide -\n"
FILES = {
    "ASVspoof5.train.tsv": (TRAIN, "flac_T"),
    "ASVspoof5.dev.track_1.tsv": (DEV, "flac_D"),
    "ASVspoof5.eval.track_1.tsv": (EVAL, "flac_E_eval"),
}


def make_corpus(folder: Path, protocols: Path) -> Path:
    protocols.mkdir(parents=True, exist_ok=True)
    for name, (text, audio) in FILES.items():
        (protocols / name).write_text(text)
        write_sounds(folder / audio, [f"{line.split()[1]}.flac" for line in text.splitlines()])
    return folder


@pytest.mark.parametrize("below", ["", "ASVspoof5_protocols"])
@pytest.mark.parametrize("above", ["", "ASVspoof5"])
def test_the_published_folders_are_a_corpus_to_train_on(tmp_path: Path, below: str, above: str) -> None:
    make_corpus(tmp_path / above, tmp_path / above / below)
    corpus = find_corpus(tmp_path)
    assert (corpus.layout, len(corpus.train), len(corpus.dev)) == ("ASVspoof 5", 3, 2)
    assert corpus.train.audio_paths[0] == tmp_path / above / "flac_T" / "T_0000000000.flac"


def test_the_first_trial_is_not_taken_for_a_header(tmp_path: Path) -> None:
    first = find_corpus(make_corpus(tmp_path, tmp_path)).train.protocol.trials[0]
    assert (first.speaker, first.utterance, first.attack, first.label) == ("T_4850", "T_0000000000", "A05", 0)


def test_the_evaluation_part_knows_attacks_and_codecs(tmp_path: Path) -> None:
    spoof, bona_fide = find_evaluation_part(make_corpus(tmp_path, tmp_path)).protocol.trials
    assert (spoof.attack, spoof.codec, spoof.label) == ("A26", "C05", 0)
    assert (bona_fide.attack, bona_fide.codec, bona_fide.label) == ("-", "-", 1)


def test_protocols_may_lie_elsewhere(tmp_path: Path) -> None:
    make_corpus(tmp_path / "data", tmp_path / "lists")
    assert len(find_corpus(tmp_path / "data", tmp_path / "lists").train) == 3


def test_a_missing_development_list_is_refused_by_its_name(tmp_path: Path) -> None:
    make_corpus(tmp_path, tmp_path)
    (tmp_path / "ASVspoof5.dev.track_1.tsv").unlink()
    with pytest.raises(UserError, match=r"ASVspoof5\.dev\.track_1\.tsv.*No such file"):
        find_corpus(tmp_path)


def test_a_line_with_another_number_of_columns_is_refused_with_its_place(tmp_path: Path) -> None:
    make_corpus(tmp_path, tmp_path)
    (tmp_path / "ASVspoof5.train.tsv").write_text(TRAIN + "T_1 T_3 A05 spoof\n")
    with pytest.raises(UserError, match=r"ASVspoof5\.train\.tsv, line 4: .* has 10 columns, found 4"):
        find_corpus(tmp_path)
