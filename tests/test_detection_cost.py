"""minDCF and actDCF of ASVspoof 5 against values worked by hand and against counting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.scores import SIX, SIX_CURVE, counted_rates, drawn
from utils.scores.detection_cost import DECISION_THRESHOLD, actual_dcf, min_dcf
from utils.scores.error_curve import ScoredTrials, error_curve


def test_the_min_dcf_of_six_scores_equals_the_value_worked_by_hand() -> None:
    """(0.95 m + 0.5 f) / 0.5 = 1.9 m + f: 1, 2/3, 1/3, 0.967, 0.633, 1.267, 1.9 along the curve."""
    found = min_dcf(SIX_CURVE)
    assert found.cost == pytest.approx(1 / 3)
    assert (found.threshold, found.miss_rate, found.false_alarm_rate) == (-2.0, 0.0, 1 / 3)


def test_the_actual_dcf_of_six_scores_equals_the_value_worked_by_hand() -> None:
    """At -0.6419 the bona fide score -1 is missed and the spoof score 0.5 accepted: 1.9 / 3 + 1 / 3."""
    found = actual_dcf(SIX)
    assert found.cost == pytest.approx(2.9 / 3)
    assert (found.miss_rate, found.false_alarm_rate) == (1 / 3, 1 / 3)


def test_the_decision_threshold_is_the_one_that_the_costs_give() -> None:
    assert DECISION_THRESHOLD == pytest.approx(-math.log(1.9)) == pytest.approx(-0.641854, abs=1e-6)


def test_a_score_at_the_decision_threshold_is_accepted() -> None:
    at = np.array([DECISION_THRESHOLD])
    assert actual_dcf(ScoredTrials(bona_fide=at, spoof=at - 1)).cost == 0
    assert actual_dcf(ScoredTrials(bona_fide=at + 1, spoof=at)).cost == 1


def test_accepting_or_rejecting_everything_costs_what_the_costs_say() -> None:
    both = np.zeros(3)
    assert actual_dcf(ScoredTrials(both + 9, both + 9)).cost == 1
    assert actual_dcf(ScoredTrials(both - 9, both - 9)).cost == pytest.approx(1.9)


@pytest.mark.parametrize("seed", range(10))
def test_the_min_dcf_equals_the_lowest_of_all_counted_costs_and_is_never_above_the_actual_one(seed: int) -> None:
    trials = drawn(seed)
    counted = min(0.95 * missed + 0.5 * accepted for missed, accepted in counted_rates(trials)) / 0.5
    assert min_dcf(error_curve(trials)).cost == pytest.approx(counted)
    assert counted <= actual_dcf(trials).cost + 1e-12


def test_the_min_dcf_of_scores_with_the_sign_turned_is_that_of_accepting_everything() -> None:
    assert min_dcf(error_curve(drawn(1).flipped)).cost == 1
