"""Labels as the field writes them: taken over in any case, and said; 0 and 1 mean what somebody says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from main import main
from tests.small_audio import write_sounds
from utils.corpora import find_corpus
from utils.corpora.protocols import scan_protocol
from utils.errors import UserError
from utils.labels import LABEL_WORDS, Labels
from utils.scores.score_files import read_scores
from utils.scores.trial_keys import read_keys


@pytest.mark.parametrize(("word", "is_bona_fide"), LABEL_WORDS.items())
def test_a_word_of_the_field_is_read_in_any_case(word: str, is_bona_fide: bool) -> None:
    labels = Labels()
    assert {labels.is_bona_fide(form) for form in (word, word.upper(), word.title(), f" {word} ")} == {is_bona_fide}


def table(folder: Path, bona_fide: str, spoof: str, header: str = "path,Label") -> Path:
    write_sounds(folder, [f"{n}.wav" for n in range(10)])
    rows = [f"{n}.wav,{bona_fide if n % 2 else spoof}" for n in range(10)]
    (folder / "all.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "all.csv"


def test_labels_that_are_taken_over_are_said_wherever_they_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path, "REAL", "FAKE")
    said = "label column `Label`: 'FAKE' read as spoof, 'REAL' as bona fide"
    assert find_corpus(tmp_path).notes == (said,)
    assert main(["--check_data", str(tmp_path)]) == 0
    assert f"  taken over   {said}" in capsys.readouterr().out
    (tmp_path / "scores.txt").write_text("".join(f"{n} {n % 2 + n / 100}\n" for n in range(10)))
    assert main(["--metrics", str(tmp_path / "scores.txt"), "--keys", str(path)]) == 0
    assert f"  {said}" in capsys.readouterr().out


def test_labels_of_the_challenges_are_taken_over_in_silence(tmp_path: Path) -> None:
    table(tmp_path, "bona-fide", "spoof")
    assert find_corpus(tmp_path).notes == ()


def test_0_and_1_are_refused_with_the_flag_that_says_what_they_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path, "0", "1")
    with pytest.raises(UserError, match=r"line 2: the key is `1`; .*: pass --label_1 spoof or --label_1 bonafide"):
        scan_protocol(path).protocol()
    with pytest.raises(UserError, match=r"line 2: .*: pass --label_1 spoof or --label_1 bonafide, found `1`"):
        read_keys(path)
    assert main(["--check_data", str(tmp_path), "--json"]) == 1
    (fault,) = json.loads(capsys.readouterr().out)["corpora"][0]["parts"][0]["faults"]["unknown labels"]
    assert "pass --label_1" in fault


@pytest.mark.parametrize("label_1", ["spoof", "bonafide"])
def test_0_and_1_are_read_as_the_flag_says_by_check_training_and_metrics(
    label_1: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path, "0", "1")
    corpus = find_corpus(tmp_path, label_1=label_1)
    bona_fide = {t.utterance for p in (corpus.train, corpus.dev) for t in p.protocol.trials if t.is_bona_fide}
    assert bona_fide == {str(n) for n in range(10) if n % 2 == (label_1 == "spoof")}
    assert main(["--check_data", str(tmp_path), "--label_1", label_1]) == 0
    assert f"'1' as {'spoof' if label_1 == 'spoof' else 'bona fide'}" in capsys.readouterr().out
    (tmp_path / "scores.txt").write_text("".join(f"{n} {n % 2 + n / 100}\n" for n in range(10)))
    typed = ["--metrics", str(tmp_path / "scores.txt"), "--keys", str(path), "--label_1", label_1, "--json"]
    assert main(typed) == 0
    assert json.loads(capsys.readouterr().out)["eer_percent"] == (0 if label_1 == "spoof" else 100)


def test_minus_1_is_the_other_class_of_1_but_not_beside_0(tmp_path: Path) -> None:
    path = table(tmp_path, "1", "-1")
    with pytest.raises(UserError, match=r"line 2: the key is `-1`; .*: pass --label_1 spoof or --label_1 bonafide"):
        scan_protocol(path).protocol()
    assert scan_protocol(path, None, Labels("bonafide")).protocol().labels == (0, 1) * 5
    path.write_text(path.read_text() + "other,0\n")
    with pytest.raises(UserError, match=r"line 12: 0 and -1 are both labels here"):
        scan_protocol(path.rename(tmp_path / "b.csv"), None, Labels("bonafide")).protocol()


def test_what_0_and_1_mean_is_part_of_what_the_data_are(tmp_path: Path) -> None:
    path = table(tmp_path, "0", "1")
    digests = {scan_protocol(path, None, Labels(label_1)).content_sha256 for label_1 in ("spoof", "bonafide")}
    words = table(tmp_path, "bonafide", "spoof")
    same = {scan_protocol(words, None, Labels(label_1)).content_sha256 for label_1 in ("spoof", None)}
    assert (len(digests), len(same)) == (2, 1)


def test_a_score_of_0_or_1_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "scores.txt").write_text("u1 A01 spoof 0\nu2 - bonafide 1\n")
    found = read_scores(tmp_path / "scores.txt")
    assert found.scores.tolist() == [0, 1]
    assert found.own_keys is not None and found.own_keys.is_bona_fide.tolist() == [False, True]
    assert [trial.label for trial in scan_protocol(tmp_path / "scores.txt").trials] == [0, 1]
