"""Score files of --eval through the rules by which the official scripts of each challenge read them.

The rules are written down here from what those scripts accept and refuse; none of their code is used.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from main import main
from tests.conftest import write_corpus
from tests.test_eval_layouts import (
    ASVSPOOF_5,
    DF_2021,
    LA_2021,
    asvspoof_5,
    asvspoof_2021,
    fill_with_noise,
    untrained,  # noqa: F401  (a fixture)
)

PROTOCOL_2019 = "ASVspoof2019.LA.cm.eval.trl.txt"


class RefusedError(Exception):
    """What an official script would end with."""


def read_by_2021(scores: str, keys: str) -> dict[str, float]:
    """The 2021 package: columns divided by one space and without header, utterance and score; every trial of the key
    file, of all subsets, and no other; numbers, at least three different ones.
    """
    rows = [line.split(" ") for line in scores.splitlines()]
    if {len(row) for row in rows} != {2}:
        raise RefusedError("submission has not two columns")
    found = {utterance: float(score) for utterance, score in rows}
    if len(rows) != len(keys.splitlines()) or set(found) != {line.split()[1] for line in keys.splitlines()}:
        raise RefusedError("submission has not all trials")
    if not all(map(math.isfinite, found.values())):
        raise RefusedError("NaN or infinity")
    if len(set(found.values())) < 3:
        raise RefusedError("soft scores are needed")
    eval_only = {line.split()[1] for line in keys.splitlines() if line.split()[7] == "eval"}
    return {utterance: score for utterance, score in found.items() if utterance in eval_only}


def read_by_2019(scores: str) -> dict[str, tuple[str, str, float]]:
    """The 2019 script and clovaai's evaluation.py: a table of four columns without comments: utterance, attack, key
    (`bonafide` or `spoof`), score; the keys are those of the file.
    """
    rows = [line.split() for line in scores.splitlines()]
    if {len(row) for row in rows} != {4}:
        raise RefusedError("four columns are needed")
    if {row[2] for row in rows} != {"bonafide", "spoof"}:
        raise RefusedError("both classes are needed")
    return {row[0]: (row[1], row[2], float(row[3])) for row in rows}


def read_by_asvspoof_5(scores: str, keys: Mapping[str, str]) -> dict[str, float]:
    """The ASVspoof 5 package: a table divided by tabs with the columns `filename` and `cm-score`, joined with its keys
    by `filename`.
    """
    rows = list(csv.DictReader(scores.splitlines(), delimiter="\t"))
    if not rows or set(rows[0]) != {"filename", "cm-score"}:
        raise RefusedError("columns filename and cm-score are needed")
    found = {row["filename"]: float(row["cm-score"]) for row in rows}
    if set(found) != set(keys):
        raise RefusedError("files differ")
    return found


def evaluated(untrained: Path, *typed: str) -> str:  # noqa: F811
    fill_with_noise(Path("data"))
    command = ["--eval", "--model_type", "lcnn", "--model_path", str(untrained), "--database_path", "data"]
    assert main([*command, *typed, "--eval_output", "scores.txt"]) == 0
    return Path("scores.txt").read_text()


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("track", "keys", "num_eval"), [("LA", LA_2021, 4), ("DF", DF_2021, 4)])
def test_the_2021_package_takes_the_file_and_the_figures_are_those_of_eval(
    track: str,
    keys: str,
    num_eval: int,
    untrained: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    asvspoof_2021(track, keys)(Path("data"))
    scores = evaluated(untrained, "--track", track)
    assert len(read_by_2021(scores, keys)) == num_eval
    said = capsys.readouterr().out
    assert "subset all, figures of eval)" in said and "Subset: eval, " in said
    Path("scores.txt").unlink()
    with pytest.raises(RefusedError, match="not all trials"):  # what was written by default before
        read_by_2021(evaluated(untrained, "--track", track, "--subset", "eval"), keys)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("typed", [(), ("--protocols_path", f"data/ASVspoof2019_LA_cm_protocols/{PROTOCOL_2019}")])
def test_the_2019_scripts_take_the_file(typed: tuple[str, ...], untrained: Path) -> None:  # noqa: F811
    data = write_corpus(Path("data"), train=2, dev=6)
    (data / "ASVspoof2019_LA_dev").rename(data / "ASVspoof2019_LA_eval")
    protocols = data / "ASVspoof2019_LA_cm_protocols"
    (protocols / "ASVspoof2019.LA.cm.dev.trl.txt").rename(protocols / PROTOCOL_2019)
    found = read_by_2019(evaluated(untrained, *typed))
    truth = {row[1]: (row[3], row[4]) for row in map(str.split, (protocols / PROTOCOL_2019).read_text().splitlines())}
    assert {name: (attack, key) for name, (attack, key, _) in found.items()} == truth


@pytest.mark.usefixtures("workplace")
def test_the_asvspoof_5_package_takes_the_file(untrained: Path) -> None:  # noqa: F811
    asvspoof_5(Path("data"))
    keys = {line.split()[1]: line.split()[8] for line in ASVSPOOF_5.splitlines()}
    assert read_by_asvspoof_5(evaluated(untrained), keys)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda: read_by_2021("LA_E_1 1\n", LA_2021), "not all trials"),
        (lambda: read_by_2021("LA_E_1 A07 spoof 1\n", LA_2021), "two columns"),
        (lambda: read_by_2019("LA_E_1 1\n"), "four columns"),
        (lambda: read_by_asvspoof_5("E_1 1\n", {"E_1": "spoof"}), "columns filename"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_these_rules_refuse_what_the_scripts_refuse(read: Callable[[], object], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        read()
