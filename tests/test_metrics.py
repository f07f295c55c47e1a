"""The EER against values worked by hand and against scikit-learn's ROC curve; what cannot be computed is refused."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from sklearn.metrics import roc_curve  # type: ignore[import-untyped,unused-ignore]

from utils.errors import UserError
from utils.scores.metrics import accuracy_percent, equal_error_rate


@pytest.mark.parametrize(
    ("bona_fide", "spoof", "eer_percent", "threshold"),
    [
        # Perfect separation: the threshold is the highest spoof score, since "above it" is bona fide.
        ([1.0, 2.0], [-2.0, -1.0], 0.0, -1.0),
        # All the wrong way round: once both bona fide are rejected, both spoof are still accepted.
        ([-2.0, -1.0], [1.0, 2.0], 100.0, -1.0),
        # One of each: bona fide first in ascending order -> miss 1, false alarm 1.
        ([0.0], [1.0], 100.0, 0.0),
        # Ascending s s B s B B: after "s s B" miss 1/3 and false alarm 1/3.
        ([-1.0, 1.0, 2.0], [-3.0, -2.0, 0.5], 100 / 3, -1.0),
        # Ascending s B s s B, of 2 and 3: |miss - false alarm| is 1, 2/3, 1/6 (1/2 and 2/3), 1/6 (1/2 and 1/3), ...:
        # the first of the two smallest counts, mean 7/12.
        ([0.2, 0.9], [0.1, 0.3, 0.4], 700 / 12, 0.2),
        # Ties: bona fide are rejected first, so s=0 B=1 s=1 s=2 B=3 ends at miss 1/2, false alarm 2/3.
        ([1.0, 3.0], [0.0, 1.0, 2.0], 700 / 12, 1.0),
        # A detector that says the same of everything: ties throughout, hence 100 and not 50.
        ([0.0, 0.0, 0.0], [0.0, 0.0], 100.0, 0.0),
        # Ascending s B s: miss 0 and false alarm 1/2, then 1 and 1/2. Both differ by 1/2, and the first counts.
        ([0.5], [0.0, 1.0], 25.0, 0.0),
    ],
)
def test_the_eer_equals_the_value_worked_by_hand(
    bona_fide: list[float], spoof: list[float], eer_percent: float, threshold: float
) -> None:
    found = equal_error_rate(bona_fide + spoof, [True] * len(bona_fide) + [False] * len(spoof))
    assert found.eer_percent == pytest.approx(eer_percent, abs=1e-12)
    assert found.threshold == threshold


def scores_of_a_fair_detector(utterances: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Scores as of a detector with an EER near 16 %, one utterance in ten bona fide."""
    generator = np.random.default_rng(seed)
    is_bona_fide = generator.random(utterances) < 0.1
    return generator.normal(np.where(is_bona_fide, 1.0, -1.0)), is_bona_fide


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_the_utterances_does_not_matter(seed: int) -> None:
    scores, is_bona_fide = scores_of_a_fair_detector(500)
    scores = scores.round(1)  # many ties
    order = np.random.default_rng(seed).permutation(500)
    assert equal_error_rate(scores[order], is_bona_fide[order]) == equal_error_rate(scores, is_bona_fide)


def test_flipping_the_sign_of_the_scores_mirrors_the_eer() -> None:
    scores, is_bona_fide = scores_of_a_fair_detector(2000)
    eer_percent = equal_error_rate(scores, is_bona_fide).eer_percent
    assert 10 < eer_percent < 20
    assert equal_error_rate(-scores, is_bona_fide).eer_percent == pytest.approx(100 - eer_percent, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_the_eer_is_within_a_quarter_step_of_the_interpolated_roc_curve(seed: int) -> None:
    """Between two thresholds one rate stands still and the other moves by one step (1 / class size). The curves cross
    within a step, so the nearer end is at most half of it away from the crossing, and the mean of the rates a quarter.
    """
    scores, is_bona_fide = scores_of_a_fair_detector(300, seed)
    false_alarm_rate, hit_rate, _ = roc_curve(is_bona_fide, scores, drop_intermediate=False)
    miss_rate = 1 - hit_rate
    interpolated = np.interp(0.0, false_alarm_rate - miss_rate, false_alarm_rate) * 100
    step = 100 / min(np.count_nonzero(is_bona_fide), np.count_nonzero(~is_bona_fide))
    assert abs(equal_error_rate(scores, is_bona_fide).eer_percent - interpolated) <= step / 4 + 1e-9


def test_the_threshold_accepts_and_rejects_at_the_error_rate() -> None:
    scores, is_bona_fide = scores_of_a_fair_detector(2000)
    found = equal_error_rate(scores, is_bona_fide)
    accepted = scores > found.threshold
    errors = (np.mean(~accepted[is_bona_fide]) + np.mean(accepted[~is_bona_fide])) / 2
    assert found.eer_percent == pytest.approx(errors * 100)


def test_600_000_scores_take_well_under_a_second() -> None:
    scores, is_bona_fide = scores_of_a_fair_detector(600_000)
    start = time.process_time()
    equal_error_rate(scores, is_bona_fide)
    assert time.process_time() - start < 0.8


@pytest.mark.parametrize(
    ("is_bona_fide", "found"), [([True] * 3, "3 bona fide and 0 spoof"), ([False] * 3, "0 bona fide and 3 spoof")]
)
def test_an_eer_of_one_class_is_refused_with_the_counts(is_bona_fide: list[bool], found: str) -> None:
    with pytest.raises(UserError, match=found):
        equal_error_rate([1.0, 2.0, 3.0], is_bona_fide)


def test_an_eer_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="0 bona fide and 0 spoof"):
        equal_error_rate([], [])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("metric", [equal_error_rate, accuracy_percent])
def test_scores_that_are_not_finite_are_refused_with_place_and_value(metric: object, value: float) -> None:
    assert callable(metric)
    with pytest.raises(UserError, match=re.escape(f"found 2 of 4 that are not, the first at index 1 ({value})")):
        metric([0.0, value, 1.0, value], [True, True, False, False])


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([[1.0, 2.0]], [[True, False]], "shape"),
        ([1.0, 2.0], [True], "shape"),
        ([1.0, 2.0], [1, 0], "int64"),  # 0 and 1 could be the other way round
        ([1.0, 2.0], ["bonafide", "spoof"], "booleans"),  # both would count as true
    ],
)
def test_labels_that_do_not_fit_are_a_bug(scores: list[float], labels: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        equal_error_rate(scores, labels)


def test_float16_scores_are_counted_in_full_precision() -> None:
    scores, is_bona_fide = scores_of_a_fair_detector(10_000)
    short = scores.astype(np.float16)
    assert equal_error_rate(short, is_bona_fide) == equal_error_rate(short.astype(np.float64), is_bona_fide)


def test_log_odds_of_exactly_zero_count_as_spoof() -> None:
    assert accuracy_percent([0.0, 0.0, 1e-9], [False, True, True]) == pytest.approx(200 / 3)


def test_accuracy_needs_one_class_only_but_not_none() -> None:
    assert accuracy_percent([1.0, -1.0], [True, True]) == 50.0
    with pytest.raises(UserError, match="at least one utterance"):
        accuracy_percent([], [])
