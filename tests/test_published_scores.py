"""The figures of published score files, to every digit, where a copy of their repository is at hand.

BONAFIDE_RAWGAT_FOLDER names a checkout of eurecom-asp/RawGAT-ST-antispoofing (or its score files in the same places).
The repository states a min t-DCF of 0.0335 and an EER of 1.06 % for "mul". All digits are what the official code gives
for the same files: eval_metrics.py of asvspoof-challenge/2021 and calculate_modules.py of asvspoof-challenge/asvspoof5.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from main import main

VARIABLE = "BONAFIDE_RAWGAT_FOLDER"
FOLDER = Path(os.environ.get(VARIABLE, ""))
ASV_SCORES = "tDCF_python/ASV_scores/ASVspoof2019.LA.asv.eval.gi.trl.scores.txt"

pytestmark = pytest.mark.skipif(
    VARIABLE not in os.environ, reason=f"{VARIABLE} does not name a checkout of eurecom-asp/RawGAT-ST-antispoofing"
)

# EER %, its threshold, min t-DCF legacy and revised, minDCF, actDCF, Cllr
FIGURES = {
    "mul": ("1.060135", "1.451266", "0.033539", "0.094168", "0.029893", "0.044395", "0.066252"),
    "add": ("1.158596", "1.745121", "0.037372", "0.097760", "0.032281", "0.046674", "0.078080"),
    "cat": ("1.235389", "1.085736", "0.038810", "0.099108", "0.033651", "0.074279", "0.134921"),
}
EER_PERCENT_OF_ATTACKS = {"A07": "0.343", "A16": "0.815", "A17": "1.745", "A18": "3.090", "A19": "0.710"}


def measured(capsys: pytest.CaptureFixture[str], scores: Path, keys: Path | None = None) -> dict[str, Any]:
    typed = ["--metrics", str(scores), "--asv_scores", str(FOLDER / ASV_SCORES), "--json"]
    assert main([*typed, *(["--keys", str(keys)] if keys else [])]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def score_file(variant: str) -> Path:
    return FOLDER / "Pre_trained_models" / f"RawGAT_ST_{variant}" / "Scores.txt"


@pytest.mark.parametrize("variant", FIGURES)
def test_the_pooled_figures_equal_those_of_the_official_code_to_all_digits(
    variant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(capsys, score_file(variant))
    assert (found["bona_fide"], found["spoof"]) == (7_355, 63_882)
    values = [found[name] for name in ("eer_percent", "eer_threshold", "min_tdcf_legacy", "min_tdcf_revised")]
    values += [found["min_dcf"]["cost"], found["actual_dcf"]["cost"], found["cllr_bits"]]
    assert tuple(f"{value:.6f}" for value in values) == FIGURES[variant]


def test_the_asv_error_rates_equal_those_of_the_official_code(capsys: pytest.CaptureFixture[str]) -> None:
    asv = measured(capsys, score_file("mul"))["asv"]
    assert (f"{asv['false_alarm_rate']:.7f}", f"{asv['miss_rate']:.7f}") == ("0.0246047", "0.0245810")
    assert f"{1 - asv['spoof_false_alarm_rate']:.7f}" == "0.2393475"


def test_the_eer_of_an_attack_equals_that_of_the_official_code(capsys: pytest.CaptureFixture[str]) -> None:
    groups = {group["name"]: group for group in measured(capsys, score_file("mul"))["groups"]["attack"]}
    assert len(groups) == 13 and {group["num_spoof"] for group in groups.values()} == {4_914}
    assert {name: f"{groups[name]['eer_percent']:.3f}" for name in EER_PERCENT_OF_ATTACKS} == EER_PERCENT_OF_ATTACKS


def test_turned_scores_have_the_mirrored_eer_and_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in score_file("mul").read_text().splitlines()]
    turned = tmp_path / "turned.txt"
    turned.write_text("".join(f"{line[0]} {-float(line[3])!r}\n" for line in lines))
    found = measured(capsys, turned, keys=score_file("mul"))
    assert (f"{found['eer_percent']:.4f}", f"{found['flipped_eer_percent']:.6f}") == ("98.9399", "1.060135")
