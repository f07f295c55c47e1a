"""Score files in every format in use, and their joining with keys: nothing missing, nothing too much, nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.scores.score_files import ScoreFile, join_scores, read_scores
from utils.scores.trial_keys import TrialKeys, read_keys

KEYS = (
    "s a none - bonafide bonafide notrim eval\n"
    "s b none - A07 spoof notrim eval\n"
    "s c alaw - A08 spoof notrim eval\n"
    "s d alaw - A08 spoof notrim progress\n"
)


def scores(folder: Path, content: str) -> ScoreFile:
    path = folder / "scores.txt"
    path.write_text(content, encoding="utf-8")
    return read_scores(path)


def keys(folder: Path, content: str = KEYS) -> TrialKeys:
    path = folder / "keys.txt"
    path.write_text(content, encoding="utf-8")
    return read_keys(path)


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("a 1.5\nb -2\n", "`utterance score` (ASVspoof 2021)"),
        ("a\t1.5\nb\t-2e0\n", "`utterance score` (ASVspoof 2021)"),
        ("a.wav 1.5\nb.flac -2\n", "`utterance score` (ASVspoof 2021)"),
        ("a - bonafide 1.5\nb A07 spoof -2\n", "`utterance attack key score` (ASVspoof 2019)"),
        ("filename\tcm-score\na\t1.5\nb\t-2\n", "table with the header `filename cm-score`"),
        ("file,score\na.wav,1.5\nb.wav,-2\n", "table with the header `file score`"),
    ],
)
def test_every_format_gives_the_same_scores_and_is_named(content: str, title: str, tmp_path: Path) -> None:
    found = scores(tmp_path, content)
    assert (found.utterances, found.scores.tolist(), found.format_title) == (("a", "b"), [1.5, -2.0], title)


def test_a_table_of_scores_with_a_column_of_labels_has_its_own_keys(tmp_path: Path) -> None:
    found = scores(tmp_path, "path,label,score\na,bonafide,1.5\nb,spoof,-2\n")
    assert join_scores(found, None).is_bona_fide.tolist() == [True, False]
    assert scores(tmp_path, "path,score\na,1.5\nb,-2\n").own_keys is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a 1.5\nb nan\n", ["line 2", "a score is a finite number", "found `nan`"]),
        ("a 1.5\n\nb -inf\n", ["line 3", "found `-inf`"]),
        ("a - bonafide 1\nb A07 spoof much\n", ["line 2", "found `much`"]),
        ("filename\tcm-score\na\t\n", ["line 2", "found ``"]),
        ("a 1\nb 2\na 3\n", ["score file", "1 that come again (a)", "lines 1 and 3"]),
        ("a 1\nb 2 3\n", ["line 2", "2, found 3"]),
        ("a b c 1\n", ["no score file that is known", "found 4 columns (`a b c 1`)"]),
        ("a\n", ["found 1 columns"]),
        ("", ["is empty", "check --metrics"]),
    ],
)
def test_a_wrong_score_file_is_refused_with_its_place_and_what_was_found(
    content: str, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        scores(tmp_path, content)
    for word in [*words, "scores.txt"]:
        assert word in str(refused.value)


def test_scores_are_joined_by_name_in_the_order_of_the_keys(tmp_path: Path) -> None:
    joined = join_scores(scores(tmp_path, "d 4\nc 3\na 1\nb 2\n"), keys(tmp_path), "all")
    assert joined.scores.tolist() == [1, 2, 3, 4]
    assert joined.is_bona_fide.tolist() == [True, False, False, False]
    assert [[factor.names[code] for code in factor.codes] for factor in joined.factors] == [
        ["bonafide", "A07", "A08", "A08"],
        ["none", "none", "alaw", "alaw"],
    ]


def test_suffixes_of_audio_files_do_not_keep_names_apart(tmp_path: Path) -> None:
    meta = "file,speaker,label\n0.wav,A B,spoof\n1.wav,C,bona-fide\n"
    assert join_scores(scores(tmp_path, "1 5\n0.flac -5\n"), keys(tmp_path, meta)).scores.tolist() == [-5, 5]


@pytest.mark.parametrize(
    ("content", "subset", "used", "left_out"),
    [
        ("a 1\nb 2\nc 3\nd 4\n", None, [1, 2, 3], 1),  # eval by default; the progress trial was scored too
        ("a 1\nb 2\nc 3\n", None, [1, 2, 3], 0),  # only eval was scored: enough for eval
        ("a 1\nb 2\nc 3\nd 4\n", "all", [1, 2, 3, 4], 0),
        ("a 1\nb 2\nc 3\nd 4\n", "progress", [4], 3),
    ],
)
def test_trials_outside_the_subset_are_left_out_and_counted(
    content: str, subset: str | None, used: list[float], left_out: int, tmp_path: Path
) -> None:
    joined = join_scores(scores(tmp_path, content), keys(tmp_path), subset)
    assert (joined.scores.tolist(), joined.num_left_out) == (used, left_out)


@pytest.mark.parametrize(
    ("content", "subset", "words"),
    [
        ("a 1\nc 3\nd 4\n", None, ["no score for 1 of 3 trials of subset eval (b)"]),
        ("a 1\nb 2\nc 3\n", "all", ["no score for 1 of 4 trials (d)"]),
        ("a 1\nb 2\nc 3\nx 4\ny 5\n", None, ["2 of 5 scores for trials not in the keys (x, y)"]),
        ("v 1\nx 3\ny 4\nz 5\n", None, ["3 of 3 trials of subset eval (a, b, c) and 4 of 4 scores", "(v, x, y, ...)"]),
    ],
)
def test_missing_and_surplus_scores_are_refused_with_counts_and_names(
    content: str, subset: str | None, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        join_scores(scores(tmp_path, content), keys(tmp_path), subset)
    for word in [*words, "scores.txt", "keys.txt"]:
        assert word in str(refused.value)


def test_a_score_file_with_keys_needs_no_other_and_one_without_does(tmp_path: Path) -> None:
    assert join_scores(scores(tmp_path, "a - bonafide 1\nb A07 spoof 2\n"), None).is_bona_fide.tolist() == [True, False]
    with pytest.raises(UserError, match="does not say which trials are spoof: pass --keys FILE"):
        join_scores(scores(tmp_path, "a 1\nb 2\n"), None)


def test_keys_in_the_score_file_that_contradict_the_key_file_are_refused(tmp_path: Path) -> None:
    swapped = scores(tmp_path, "a - bonafide 1\nb - bonafide 2\nc A08 spoof 3\n")
    with pytest.raises(UserError, match=r"its own keys contradict .*keys\.txt for 1 trials \(b\)"):
        join_scores(swapped, keys(tmp_path))
