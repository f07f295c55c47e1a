"""minCllr against values worked by hand, and against what no rising function of the scores can go below."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from tests.scores import SIX, drawn
from utils.scores.calibration import cllr, fit_linear_calibration
from utils.scores.error_curve import ScoredTrials
from utils.scores.minimum_cllr import min_cllr


@pytest.mark.parametrize(
    ("bona_fide", "spoof", "bits", "reason"),
    [
        # s s B s B B: PAV pools the B and the s in the middle, one of each three: ratio 1, so log2(2) = 1 bit for each
        # of both, nothing for the others: (1/3 + 1/3) / 2.
        (SIX.bona_fide.tolist(), SIX.spoof.tolist(), 1 / 3, "six scores"),
        ([2.0, 3.0], [0.0, 1.0], 0.0, "no error"),
        ([0.0, 1.0], [2.0, 3.0], 1.0, "the wrong way round: one group of everything"),
        ([5.0, 5.0], [5.0, 5.0, 5.0], 1.0, "constant"),
        # 0/1 decisions, B: 1 1 1 0, s: 0 0 0 1. At 1: shares 3/4 and 1/4, ratio 3; at 0: 1/4 and 3/4. Both classes:
        # 3/4 log2(4/3) + 1/4 log2(4).
        ([1, 1, 1, 0], [0, 0, 0, 1], 0.75 * math.log2(4 / 3) + 0.5, "decisions"),
        # Equal scores are one group: at 1, one B of 2 and one s of 2: ratio 1. (1/2 + 1/2) / 2.
        ([1.0, 2.0], [0.0, 1.0], 0.5, "a tie"),
        # s B s B B, B of 3 and s of 2: the middle two: shares 1/3 and 1/2, ratio 2/3:
        # (1/3 log2(1 + 3/2) + 1/2 log2(1 + 2/3)) / 2.
        ([1.0, 3.0, 4.0], [0.0, 2.0], (math.log2(2.5) / 3 + math.log2(5 / 3) / 2) / 2, "classes of two sizes"),
    ],
)
def test_min_cllr_equals_the_value_worked_by_hand(
    bona_fide: list[float], spoof: list[float], bits: float, reason: str
) -> None:
    assert min_cllr(ScoredTrials(np.array(bona_fide), np.array(spoof))) == pytest.approx(bits, abs=1e-12), reason


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("seed", range(6))
def test_min_cllr_is_the_cllr_of_the_ratios_that_another_pav_gives(seed: int, decimals: int | None) -> None:
    trials = drawn(seed, 500, decimals)
    scores = np.concatenate((trials.bona_fide, trials.spoof))
    truth = np.arange(scores.size) < trials.bona_fide.size
    share = _shares(scores, truth)
    prior = math.log(trials.bona_fide.size / trials.spoof.size)
    with np.errstate(divide="ignore"):
        ratios = np.log(share) - np.log1p(-share) - prior
    best = cllr(ScoredTrials(np.minimum(ratios[truth], 700), np.maximum(ratios[~truth], -700)))
    assert min_cllr(trials) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_no_calibration_is_below_it_and_none_changes_it(seed: int) -> None:
    trials = drawn(seed, 2000)
    scores = np.concatenate((trials.bona_fide, trials.spoof))
    truth = np.arange(scores.size) < trials.bona_fide.size
    fitted = fit_linear_calibration(scores, truth)
    calibrated = ScoredTrials.of(fitted.scale * scores + fitted.offset, truth)
    assert min_cllr(trials) <= cllr(calibrated)
    assert min_cllr(calibrated) == pytest.approx(min_cllr(trials), abs=1e-12)


def _shares(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the share of bona fide that SciPy's PAV gives each score; equal scores weigh together."""
    values, places = np.unique(scores, return_inverse=True)
    counts = np.bincount(places)
    means = np.bincount(places, weights=truth) / counts
    assert values.size == means.size
    pooled: np.ndarray = isotonic_regression(means, weights=counts).x[places]
    return pooled
