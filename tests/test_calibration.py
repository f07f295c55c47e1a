"""Cllr against values worked by hand; the linear calibration against an optimizer, and on what it must survive."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.scores import drawn
from utils.errors import UserError
from utils.scores.calibration import cllr, fit_linear_calibration
from utils.scores.error_curve import ScoredTrials

Labelled = tuple[np.ndarray, np.ndarray]


def labelled(trials: ScoredTrials) -> Labelled:
    scores = np.concatenate((trials.bona_fide, trials.spoof))
    return scores, np.arange(scores.size) < trials.bona_fide.size


@pytest.mark.parametrize(
    ("bona_fide", "spoof", "bits"),
    [
        ([0.0], [0.0], 1.0),  # knows nothing and says so
        ([math.log(3)], [-math.log(3)], math.log2(4 / 3)),  # log2(1 + 1/3) of each
        ([math.log(3), 0.0], [0.0], (math.log2(4 / 3) + 1 + 2) / 4),  # the mean of each class, then of both
        ([math.log(3)] * 5, [0.0], (math.log2(4 / 3) + 1) / 2),  # the size of a class does not matter
        ([-1000.0], [1000.0], 1000 / math.log(2)),  # where exp overflows, this does not
        ([1000.0], [-1000.0], 0.0),
    ],
)
def test_cllr_equals_the_value_worked_by_hand(bona_fide: list[float], spoof: list[float], bits: float) -> None:
    assert cllr(ScoredTrials(np.array(bona_fide), np.array(spoof))) == pytest.approx(bits, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("prior", [0.5, 0.05, 0.655])
def test_the_calibration_is_where_an_optimizer_finds_the_lowest_cost(seed: int, prior: float) -> None:
    """The cost written out: each class weighs its prior, and counts as itself by (n + 1) / (n + 2)."""
    trials = drawn(seed)
    shift = math.log(prior / (1 - prior))

    def cost(parameters: np.ndarray) -> float:
        total = 0.0
        for scores, weight, sure in (
            (trials.bona_fide, prior, (trials.bona_fide.size + 1) / (trials.bona_fide.size + 2)),
            (trials.spoof, 1 - prior, 1 / (trials.spoof.size + 2)),
        ):
            log_odds = parameters[0] * scores + parameters[1] + shift
            losses = sure * np.logaddexp(0, -log_odds) + (1 - sure) * np.logaddexp(0, log_odds)
            total += weight * float(losses.mean())
        return total

    found = fit_linear_calibration(*labelled(trials), prior)
    best = minimize(cost, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 5000})
    assert (found.scale, found.offset) == pytest.approx(tuple(best.x), abs=1e-5)
    assert cost(np.array([found.scale, found.offset])) <= best.fun + 1e-14


def test_normal_scores_of_equal_spread_get_their_true_likelihood_ratio() -> None:
    """For N(1, 1) against N(-1, 1), the log-likelihood ratio is 2 x score, whatever scale and offset hide it."""
    scores, is_bona_fide = labelled(drawn(3, utterances=200_000))
    found = fit_linear_calibration(5 * scores - 7, is_bona_fide)
    assert (found.scale * 5, found.offset - 7 * found.scale) == pytest.approx((2, 0), abs=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_calibrated_scores_have_a_lower_cllr_and_cannot_be_calibrated_further(seed: int) -> None:
    scores, is_bona_fide = labelled(drawn(seed, utterances=3000))
    scores = 4 * scores + 3
    fitted = fit_linear_calibration(scores, is_bona_fide)
    llrs = fitted.scale * scores + fitted.offset
    before, after = (cllr(ScoredTrials.of(values, is_bona_fide)) for values in (scores, llrs))
    assert after < before
    again = fit_linear_calibration(llrs, is_bona_fide)
    assert (again.scale, again.offset) == pytest.approx((1, 0), abs=1e-6)


def test_the_same_scores_give_the_same_bits() -> None:
    assert fit_linear_calibration(*labelled(drawn(1))) == fit_linear_calibration(*labelled(drawn(1)))


def test_separable_scores_have_a_finite_calibration_that_is_surer_the_more_there_are() -> None:
    """As on the development part of ASVspoof 2019, where large detectors make no error."""
    scales = []
    for count in (5, 50, 500):
        scores = np.concatenate((np.linspace(1, 2, count), np.linspace(-2, -1, 9 * count)))
        found = fit_linear_calibration(scores, np.arange(scores.size) < count)
        assert np.isfinite([found.scale, found.offset]).all()
        scales.append(found.scale)
    assert scales == sorted(scales) and scales[0] > 1


def test_scores_with_the_sign_turned_get_a_negative_scale() -> None:
    scores, is_bona_fide = labelled(drawn(1))
    straight, turned = (fit_linear_calibration(sign * scores, is_bona_fide) for sign in (1, -1))
    assert straight.scale > 0
    assert (turned.scale, turned.offset) == pytest.approx((-straight.scale, straight.offset))


@pytest.mark.parametrize(
    ("bona_fide", "spoof", "reason"),
    [
        ([1.0], [0.0], "one of each"),
        ([1e-300, 2e-300], [0.0, -1e-300], "tiny"),
        ([1e150, 2e150], [0.0, -1e150], "huge"),
        ([1.0, 1.0, 1e9], [0.0, 0.5, -1e9], "far outliers"),
        ([0.0, 0.0, 0.0, -1e6], [0.0, 0.0, 1e6], "one far outlier in the wrong place"),
        ([1e15 + 2, 1e15 + 4], [1e15, 1e15 - 2], "a far offset"),
    ],
)
def test_unusual_scores_have_a_finite_calibration(bona_fide: list[float], spoof: list[float], reason: str) -> None:
    scores = np.array(bona_fide + spoof)
    found = fit_linear_calibration(scores, np.arange(scores.size) < len(bona_fide))
    assert np.isfinite(found.scale * scores + found.offset).all(), reason


@pytest.mark.parametrize(
    ("scores", "is_bona_fide", "words"),
    [
        ([2.5, 2.5, 2.5], [True, False, False], "found 2.5 for all 3 utterances"),
        ([1.0, 2.0], [True, True], "a calibration needs utterances of both classes"),
        ([1.0, float("nan")], [True, False], "must be finite"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(scores: list[float], is_bona_fide: list[bool], words: str) -> None:
    with pytest.raises(UserError, match=words):
        fit_linear_calibration(scores, is_bona_fide)


@pytest.mark.parametrize("prior", [0.0, 1.0, float("nan")])
def test_a_prior_that_is_no_probability_in_between_is_a_bug(prior: float) -> None:
    with pytest.raises(ValueError, match="prior"):
        fit_linear_calibration([1.0, 0.0], [True, False], prior)
