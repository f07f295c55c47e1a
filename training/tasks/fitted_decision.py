"""The calibration of a validation, and where it turns, from its scores; the same scores give the same bits."""

from __future__ import annotations

from dataclasses import replace

from numpy.typing import ArrayLike

from training.checkpoints.decision import Decision
from utils.errors import UserError
from utils.scores.calibration import fit_linear_calibration
from utils.scores.error_curve import ScoredTrials, error_curve
from utils.scores.metrics import error_rates_above, middle_of_eer


def decision_from(step: int, scores: ArrayLike, is_bona_fide: ArrayLike) -> Decision:
    """Return how to decide after `step` steps: a calibration fitted on validation `scores`, and what it does to them.

    `scores` `(utterances,)` are log-odds and `is_bona_fide` `(utterances,)` booleans. The calibration is a logistic
    regression with both classes weighted alike (`utils.scores.calibration`), None where all scores are the same.

    >>> decision_from(7, [1.0, 1.0], [True, False])
    Decision(step=7, threshold=1.0, scale=None, offset=None, num_bona_fide=1, num_spoof=1, miss_rate=1.0, \
false_alarm_rate=0.0)
    """
    trials = ScoredTrials.of(scores, is_bona_fide)
    scale, offset = _fitted(scores, is_bona_fide)
    middle = middle_of_eer(error_curve(trials))
    made = Decision(step, middle, scale, offset, trials.bona_fide.size, trials.spoof.size)
    rule = made.rule()
    threshold = rule.threshold if rule else middle
    rates = error_rates_above(trials, threshold)
    return replace(made, threshold=threshold, miss_rate=rates.miss_rate, false_alarm_rate=rates.false_alarm_rate)


def _fitted(scores: ArrayLike, is_bona_fide: ArrayLike) -> tuple[float, float] | tuple[None, None]:
    try:
        fitted = fit_linear_calibration(scores, is_bona_fide)
    except UserError:  # they are all the same
        return None, None
    return fitted.scale, fitted.offset
