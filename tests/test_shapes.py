"""What pictures of scores show, before anything paints it."""

from __future__ import annotations

import numpy as np
import pytest

from utils.scores.error_curve import ScoredTrials, error_curve
from utils.scores.metrics import equal_error_rate_of
from utils.scores.shapes import DetShape, OperatingPoint, binned_scores, det_shape


def trials_with(distance: float, utterances: int = 20_000) -> ScoredTrials:
    """Normal scores of both classes, `distance` deviations apart."""
    scores = np.random.default_rng(1).standard_normal(utterances)
    truth = np.arange(utterances) % 2 == 0
    return ScoredTrials.of(scores + distance * truth, truth)


def shape_of(trials: ScoredTrials, *others: OperatingPoint) -> DetShape:
    curve = error_curve(trials)
    return det_shape(curve, equal_error_rate_of(curve).eer_percent, others)


@pytest.mark.parametrize(
    ("distance", "low", "high", "is_visible", "why"),
    [
        (2.0, 1e-3, 0.6, True, "an EER of 16 %"),
        (5.0, 1e-4, 0.6, True, "an EER below 1 % has a corner of its own"),
        (0.5, 1e-3, 0.999, True, "an EER of 40 %"),
        (50.0, 1e-4, 0.6, False, "no error at any threshold between the classes"),
    ],
)
def test_the_axes_follow_the_eer(distance: float, low: float, high: float, is_visible: bool, why: str) -> None:
    shape = shape_of(trials_with(distance))
    assert (shape.low, shape.high, shape.is_visible) == (low, high, is_visible), why
    assert all(100 * low <= tick <= 100 * high for tick in shape.ticks_percent)
    assert shape.marked[0].name.startswith("EER ") and shape.marked[0].name.endswith("edge)") is not is_visible


def test_a_few_hundred_points_stay_of_a_curve_and_reach_from_edge_to_edge() -> None:
    shape = shape_of(trials_with(2.0, 100_000))
    assert 100 < shape.miss_rate.size < 1500
    for rates in (shape.miss_rate, shape.false_alarm_rate):
        assert rates.min() >= shape.low and rates.max() <= shape.high
    assert shape.high in (shape.false_alarm_rate[0], shape.false_alarm_rate[-1])
    assert shape.high in (shape.miss_rate[0], shape.miss_rate[-1])


def test_an_operating_point_outside_is_put_on_the_edge_and_says_so() -> None:
    inside, outside = shape_of(
        trials_with(2.0), OperatingPoint("minDCF 0.3", 0.01, 0.3), OperatingPoint("actDCF 1.0", 0.0, 1.0)
    ).marked[1:]
    assert inside == OperatingPoint("minDCF 0.3", 0.01, 0.3)
    assert outside == OperatingPoint("actDCF 1.0 (beyond the edge)", 1e-3, 0.6)


def test_each_class_of_a_histogram_adds_up_to_all_of_it_within_the_axis() -> None:
    binned = binned_scores(trials_with(2.0))
    for shares in (binned.bona_fide, binned.spoof):
        assert shares.sum() == pytest.approx(100)
        low, high = binned.share_limits
        assert shares[shares > 0].min() > low and shares.max() < high
