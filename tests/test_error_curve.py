"""The error curve against one worked by hand and one counted, and what no metric on it may depend on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.scores import SIX_CURVE, counted_rates, curve_of, drawn
from utils.errors import UserError
from utils.scores.detection_cost import min_dcf
from utils.scores.error_curve import ErrorCurve, ScoredTrials, error_curve
from utils.scores.metrics import equal_error_rate_of
from utils.scores.tandem_cost import DEFAULT_ASV_RATES, min_tdcf_legacy, min_tdcf_revised

ON_THE_CURVE: dict[str, Callable[[ErrorCurve], float]] = {
    "EER": lambda curve: equal_error_rate_of(curve).eer_percent,
    "minDCF": lambda curve: min_dcf(curve).cost,
    "min t-DCF legacy": lambda curve: min_tdcf_legacy(curve, DEFAULT_ASV_RATES),
    "min t-DCF revised": lambda curve: min_tdcf_revised(curve, DEFAULT_ASV_RATES),
}


def test_the_curve_of_six_scores_equals_the_one_worked_by_hand() -> None:
    assert SIX_CURVE.miss_rate.tolist() == [0, 0, 0, 1 / 3, 1 / 3, 2 / 3, 1]
    assert SIX_CURVE.false_alarm_rate.tolist() == [1, 2 / 3, 1 / 3, 1 / 3, 0, 0, 0]
    assert SIX_CURVE.thresholds.tolist() == [-3.001, -3, -2, -1, 0.5, 1, 2]


@pytest.mark.parametrize("seed", range(10))
def test_the_curve_equals_one_that_counts_every_utterance(seed: int) -> None:
    curve = curve_of(seed)
    assert np.stack((curve.miss_rate, curve.false_alarm_rate), axis=1) == pytest.approx(
        np.array(counted_rates(drawn(seed)))
    )


@pytest.mark.parametrize("metric", ON_THE_CURVE.values(), ids=ON_THE_CURVE)
@pytest.mark.parametrize("rising", [np.exp, lambda s: s**3, lambda s: 0.01 * s - 40, lambda s: np.tanh(s / 10)])
@pytest.mark.parametrize("decimals", [None, 1])
def test_a_metric_on_the_curve_is_the_same_under_every_rising_map(
    metric: Callable[[ErrorCurve], float], rising: Callable[[np.ndarray], np.ndarray], decimals: int | None
) -> None:
    for seed in range(5):
        trials = drawn(seed, decimals=decimals)
        mapped = ScoredTrials(rising(trials.bona_fide), rising(trials.spoof))
        assert metric(error_curve(mapped)) == metric(error_curve(trials))


@pytest.mark.parametrize("seed", range(10))
def test_turning_the_sign_mirrors_the_eer_where_there_are_no_ties(seed: int) -> None:
    trials = drawn(seed)
    eer = equal_error_rate_of(error_curve(trials)).eer_percent
    step = 100 / trials.bona_fide.size
    # The first of two equally good thresholds counts, which is the other one from the other end: half a step apart.
    assert equal_error_rate_of(error_curve(trials.flipped)).eer_percent == pytest.approx(100 - eer, abs=step / 2 + 1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_with_ties_the_eer_and_its_mirror_image_sum_to_100_or_more(seed: int) -> None:
    """Ties count against the detector from either end; and with half of all scores equal they count a lot."""
    trials = drawn(seed, decimals=0)
    total = sum(equal_error_rate_of(error_curve(turned)).eer_percent for turned in (trials, trials.flipped))
    assert 100 <= total <= 200


@pytest.mark.parametrize(("scores", "is_soft"), [([0, 1, 1, 0], False), ([1, 1, 1, 1], False), ([0, 1, 2, 0], True)])
def test_three_different_scores_are_soft_and_fewer_are_decisions(scores: list[float], is_soft: bool) -> None:
    assert error_curve(ScoredTrials.of(scores, [True, True, False, False])).has_soft_scores == is_soft


def test_a_missing_class_is_refused_in_the_name_of_the_measure() -> None:
    with pytest.raises(
        UserError, match="a calibration needs utterances of both classes, found 2 bona fide and 0 spoof"
    ):
        ScoredTrials.of([1.0, 2.0], [True, True], "a calibration")
