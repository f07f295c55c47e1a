"""One rule decides: verdict, log-likelihood ratio and threshold agree to the last bit; without one it says why."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from training.checkpoints.decision import Decision
from training.checkpoints.sealed_file import read_record
from training.evaluation.judge import Judge, judge_of
from training.tasks.fitted_decision import decision_from
from utils.scores.calibration import fit_linear_calibration
from utils.scores.error_curve import ScoredTrials
from utils.scores.metrics import ErrorRates, equal_error_rate, error_rates_above
from utils.scores.verdicts import BONA_FIDE, SPOOF, VerdictRule


@pytest.mark.parametrize("seed", range(200))
def test_verdict_ratio_and_threshold_never_contradict_each_other(seed: int) -> None:
    """Over calibrations and priors of many sizes, at the threshold, beside it by one bit, and far from it."""
    generator = np.random.default_rng(seed)
    scale = float(10 ** generator.uniform(-6, 6))
    offset = float(generator.normal() * 10 ** generator.uniform(-6, 6))
    prior = float(generator.choice([0.5, generator.uniform(1e-9, 1 - 1e-9), 0.05, 1e-12, 1 - 1e-12]))
    rule = VerdictRule(scale, offset, prior)
    turns = rule.threshold
    beside = [turns, math.nextafter(turns, math.inf), math.nextafter(turns, -math.inf)]
    for score in (*beside, *(turns + generator.normal(size=20) * 10 ** generator.uniform(-12, 6, 20)).tolist()):
        said = {rule.verdict(score) == BONA_FIDE, score > turns, rule.llr(score) > rule.bar}
        assert len(said) == 1, (score, rule)
    assert rule.verdict(turns) == SPOOF and rule.verdict(beside[1]) == BONA_FIDE


@pytest.mark.parametrize(
    ("prior", "threshold"),
    [
        (0.5, 0.25),  # 2 x 0.25 - 0.5 = 0
        (0.05, (math.log(19) + 0.5) / 2),  # spoof is 19 times as probable: the ratio must exceed 19
        (0.95, (-math.log(19) + 0.5) / 2),
    ],
)
def test_the_prior_moves_the_threshold_and_not_the_ratio(prior: float, threshold: float) -> None:
    rule = VerdictRule(2.0, -0.5, prior)
    assert rule.threshold == pytest.approx(threshold, abs=1e-12)
    assert rule.llr(3.0) == 5.5


# A decision of validation


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Decision(1, 0.0, None, None, 50, 50), "gave every utterance the same score"),
        (Decision(1, 0.0, -0.5, 1.0, 50, 50), "the slope of the calibration is -0.5 and not positive"),
        (Decision(1, 0.0, 0.0, 1.0, 50, 50), "the slope of the calibration is 0 and not positive"),
        (Decision(1, 0.0, math.nan, 1.0, 50, 50), "no number"),
        (Decision(1, 0.0, 1.0, math.inf, 50, 50), "no number"),
        (Decision(1, 0.0, 1.0, 1.0, 9, 4000), "saw 9 bona fide and 4,000 spoof utterances, and a verdict needs 10 of"),
        (Decision(1, 0.0, 1.0, 1.0, 10, 10), ""),
        (Decision(1, 0.0, 1.0, 1.0), ""),  # an earlier version did not count
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_calibration_that_is_worth_nothing_gives_no_verdict_and_says_why(decision: Decision, words: str) -> None:
    assert words in decision.why_undecided and bool(words) == bool(decision.why_undecided)
    assert (decision.rule() is None) == bool(words)
    judge = judge_of(decision, 0.5, "a.pth", None, "")
    assert judge.verdict(7.0) == (None if words else BONA_FIDE)
    assert words in judge.lines()[0]


def separated() -> tuple[np.ndarray, np.ndarray]:
    """Scores as of a detector that makes no error, the spoof ones widely spread: the issue's -5.52 and -0.34."""
    spoof = np.concatenate((np.linspace(-30, -6, 899), [-5.52]))
    return np.concatenate((np.linspace(4.84, 6, 100), spoof)), np.arange(1000) < 100


def test_where_validation_separates_the_classes_the_threshold_is_the_middle_of_the_gap() -> None:
    """It was the edge of the spoof scores, so that any unseen spoof a little above them passed."""
    scores, truth = separated()
    made = decision_from(5, scores, truth)
    assert made.threshold == pytest.approx((4.84 - 5.52) / 2, abs=1e-9)
    assert (made.miss_rate, made.false_alarm_rate) == (0.0, 0.0)
    assert made.scale is not None and 0 < made.scale < 10
    assert equal_error_rate(scores, truth).threshold == -5.52  # the official one stays what it is


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("prior", [0.5, 0.05, 0.9])
def test_any_gap_has_a_finite_calibration_that_turns_in_its_middle(seed: int, prior: float) -> None:
    generator = np.random.default_rng(seed)
    sizes, spreads = generator.integers(1, 400, 2), 10 ** generator.uniform(-3, 3, 2)
    middle, half = generator.normal() * 100, 10 ** generator.uniform(-2, 2)
    bona_fide = middle + half + np.append(generator.exponential(spreads[0], sizes[0] - 1), 0.0)
    spoof = middle - half - np.append(generator.exponential(spreads[1], sizes[1] - 1), 0.0)
    found = fit_linear_calibration(np.append(bona_fide, spoof), np.arange(sizes.sum()) < sizes[0], prior)
    assert found.scale > 0 and math.isfinite(found.scale)
    assert -found.offset / found.scale == pytest.approx(middle, abs=1e-6 * half + 1e-9 * abs(middle))


@pytest.mark.parametrize("seed", range(20))
def test_the_stored_error_rates_are_those_at_the_stored_threshold_which_is_where_the_rule_turns(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.random(300) < 0.3
    scores = generator.normal(np.where(truth, 1.0, -1.0) * generator.uniform(0.2, 2))
    made = decision_from(1, scores, truth)
    rule = made.rule()
    assert rule is not None and rule.threshold == made.threshold
    told = [rule.verdict(score) for score in scores.tolist()]
    missed = statistics.fmean([verdict == SPOOF for verdict, is_in in zip(told, truth, strict=True) if is_in])
    accepted = statistics.fmean([verdict == BONA_FIDE for verdict, is_in in zip(told, truth, strict=True) if not is_in])
    assert (made.miss_rate, made.false_alarm_rate) == (missed, accepted)


def test_with_the_sign_turned_there_is_no_verdict_and_the_middle_of_the_eer_is_stored() -> None:
    scores, truth = separated()
    made = decision_from(5, -scores, truth)
    assert made.scale is not None and made.scale < 0 and made.rule() is None


# What other versions read and wrote


def test_a_record_of_a_later_version_with_more_fields_is_read_and_one_of_an_earlier_version_too() -> None:
    made = decision_from(5, *separated())
    assert Decision.from_dict(made.as_dict() | {"of_a_later_version": 1}) == made
    assert set(made.as_dict()) >= {"step", "threshold", "scale", "offset"}  # what earlier versions ask for
    early = Decision.from_dict({"step": 20, "threshold": 0.25, "scale": 1.5, "offset": -0.5})
    assert early == Decision(20, 0.25, 1.5, -0.5)


def test_a_file_of_format_2_decides_by_its_calibration_and_says_that_its_errors_are_not_known() -> None:
    record = read_record(Path(__file__).parent / "fixtures" / "format_2" / "best_model_eer.pth")
    assert record is not None and record["decision"]["threshold"] == 0.25  # that of the EER
    judge = judge_of(Decision.from_dict(record["decision"]), 0.5, "best_model_eer.pth", None, "")
    assert judge.rule is not None and judge.rule.threshold == pytest.approx(1 / 3)
    assert judge.lines()[1].endswith("its errors are not stored in this file for this prior")


def test_the_errors_of_another_prior_come_from_the_scores_of_validation_where_the_file_has_them() -> None:
    scores, truth = separated()
    made, trials = decision_from(5, scores, truth), ScoredTrials.of(scores, truth)
    even, rare = judge_of(made, 0.5, "a.pth", None, ""), judge_of(made, 1e-9, "a.pth", None, "")
    assert even.on_validation == ErrorRates(0.0, 0.0) and rare.on_validation is None
    judge = judge_of(made, 1e-9, "a.pth", trials, "")
    assert judge.rule is not None and judge.on_validation == error_rates_above(trials, judge.rule.threshold)
    assert judge.on_validation.miss_rate == 1.0


def test_a_judge_without_a_rule_has_no_verdict_no_ratio_and_a_reason() -> None:
    judge = Judge(why_not="the mean of several epochs was never validated")
    assert (judge.verdict(1.0), judge.llr(1.0), judge.document()["threshold"]) == (None, None, None)
    assert judge.document()["threshold_from"] == "the mean of several epochs was never validated"
