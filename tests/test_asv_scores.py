"""ASV score files of ASVspoof 2019 and 2021 give the error rates worked by hand in test_tandem_cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.scores.asv_scores import read_asv_error_rates
from utils.scores.tandem_cost import AsvErrorRates

TRIALS = [
    *(("target", score) for score in (1, 2, 3, 4)),
    *(("nontarget", score) for score in (0, 1.5)),
    *(("spoof", score) for score in (0.5, 1, 3)),
]
RATES = AsvErrorRates(false_alarm_rate=0.5, miss_rate=0.0, spoof_false_alarm_rate=2 / 3)


def write_2019(folder: Path, last: str = "") -> Path:
    path = folder / "asv.txt"
    path.write_text("".join(f"{'A07' if key == 'spoof' else 'bonafide'} {key} {s}\n" for key, s in TRIALS) + last)
    return path


def write_2021(folder: Path) -> Path:
    """The layout of keys/LA/ASV; trials of the progress subset have scores that would change every rate."""
    path = folder / "ASV" / "ASVTorch_Kaldi" / "score.txt"
    path.parent.mkdir(parents=True)
    trials = [(*trial, "eval") for trial in TRIALS] + [(key, 2.5, "progress") for key, _ in TRIALS]
    path.write_text("".join(f"LA_0007 LA_E_{n} {score}\n" for n, (_, score, _) in enumerate(trials)))
    (folder / "ASV" / "trial_metadata.txt").write_text(
        "".join(f"LA_0007 LA_E_{n} none - - {key} notrim {part}\n" for n, (key, _, part) in enumerate(trials))
    )
    return path


def test_the_rates_of_2019_scores_equal_those_worked_by_hand(tmp_path: Path) -> None:
    assert read_asv_error_rates(write_2019(tmp_path), "all") == RATES


def test_the_rates_of_2021_scores_are_those_of_the_subset(tmp_path: Path) -> None:
    path = write_2021(tmp_path)
    assert read_asv_error_rates(path, "eval") == RATES
    assert read_asv_error_rates(path, "all") != RATES


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("bonafide impostor 1\n", ["line 10", "`nontarget`", "found `impostor`"]),
        ("bonafide target high\n", ["line 10", "a score is a finite number", "found `high`"]),
        ("bonafide target nan\n", ["line 10", "found `nan`"]),
        ("bonafide target\n", ["line 10", "3, found 2"]),
    ],
)
def test_a_wrong_asv_score_file_is_refused(last: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        read_asv_error_rates(write_2019(tmp_path, last), "all")
    for word in words:
        assert word in str(refused.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cm.txt"
    path.write_text("LA_E_1 2.0\n")
    with pytest.raises(UserError, match=r"found 2 columns \(`LA_E_1 2.0`\): check --asv_scores"):
        read_asv_error_rates(path, "all")


def test_2021_scores_without_their_keys_beside_them_are_refused_with_the_place(tmp_path: Path) -> None:
    path = write_2021(tmp_path)
    (tmp_path / "ASV" / "trial_metadata.txt").unlink()
    with pytest.raises(UserError, match=r"there is no .*ASV/trial_metadata\.txt"):
        read_asv_error_rates(path, "eval")


def test_2021_scores_of_other_trials_than_the_keys_beside_them_are_refused(tmp_path: Path) -> None:
    path = write_2021(tmp_path)
    path.write_text(path.read_text().replace("LA_E_3 ", "LA_E_33 "))
    with pytest.raises(UserError, match="must hold the same trials line by line"):
        read_asv_error_rates(path, "eval")
