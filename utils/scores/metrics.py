"""How well scores tell bona fide from spoof: the equal error rate as the ASVspoof challenges compute it, and accuracy.

Scores are log-odds of bona fide (log p1 - log p0): higher is bona fide, everywhere. Nothing here has a default for what
cannot be computed: NaN, infinity or a missing class is an error, never 50 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from utils.errors import UserError
from utils.scores.error_curve import ErrorCurve, ScoredTrials, checked, error_curve


@dataclass(frozen=True)
class EqualErrorRate:
    """The error rate where missed bona fide and accepted spoof are closest, and the score at which that is.

    `eer_percent` is in [0, 100]; above 50, the sign of the scores is probably flipped. An utterance is accepted as
    bona fide where its score is above `threshold` (log-odds).
    """

    eer_percent: float
    threshold: float


def equal_error_rate(scores: ArrayLike, is_bona_fide: ArrayLike) -> EqualErrorRate:
    """Return the EER of `scores` `(utterances,)` with the truth `is_bona_fide` `(utterances,)`, booleans.

    Source: compute_det_curve and compute_eer of asvspoof-challenge/2021, eval-package/eval_metrics.py, as in the 2019
    and ASVspoof 5 packages; on the 71,237 scores published with RawGAT-ST ("mul") it gives their 1.060135 %.
    Each score in ascending order serves as threshold; the EER is the mean of the two error rates at the first one where
    their difference is smallest. No line is drawn between thresholds, so it differs from an EER read off an
    interpolated ROC curve, by at most a quarter of the coarser step, 100 / class size (more with ties).

    Of equal scores, bona fide ones are rejected first: ties count against the detector, and one that gives every
    utterance the same score has an EER of 100 %.

    Raises UserError for scores that are not finite and where a class is missing, ValueError for shapes or types that
    do not fit.

    >>> equal_error_rate([2.0, 1.0, -1.0, 0.5, -2.0, -3.0], [True, True, True, False, False, False])
    EqualErrorRate(eer_percent=33.33333333333333, threshold=-1.0)
    """
    return equal_error_rate_of(error_curve(ScoredTrials.of(scores, is_bona_fide)))


def equal_error_rate_of(curve: ErrorCurve) -> EqualErrorRate:
    """Return the EER of an error curve that is there already; see `equal_error_rate`."""
    closest = int(np.argmin(np.abs(curve.miss_rate - curve.false_alarm_rate)))
    return EqualErrorRate(
        eer_percent=float(curve.miss_rate[closest] + curve.false_alarm_rate[closest]) / 2 * 100,
        threshold=float(curve.thresholds[closest]),
    )


def middle_of_eer(curve: ErrorCurve) -> float:
    """Return the middle of the scores between which every threshold has the error rates of the EER.

    The official threshold is the lower end of that interval: a score of the validation itself, at which one more
    utterance lies on the edge. Whoever decides on other utterances has no reason to stand there.

    >>> from utils.scores.error_curve import error_curve
    >>> middle_of_eer(error_curve(ScoredTrials.of([3.0, 2.0, -4.0], [True, True, False])))
    -1.0
    """
    closest = int(np.argmin(np.abs(curve.miss_rate - curve.false_alarm_rate)))
    low = float(curve.thresholds[closest])
    high = float(curve.thresholds[min(closest + 1, curve.thresholds.size - 1)])
    return low + (high - low) / 2


@dataclass(frozen=True)
class ErrorRates:
    """The errors of a decision, as fractions: bona fide utterances that were missed, spoof that was accepted."""

    miss_rate: float
    false_alarm_rate: float


def error_rates_above(trials: ScoredTrials, threshold: float) -> ErrorRates:
    """Return the errors where what is above a threshold is taken for bona fide.

    >>> error_rates_above(ScoredTrials.of([2.0, 0.5, 0.5, -1.0], [True, True, False, False]), 0.5)
    ErrorRates(miss_rate=0.5, false_alarm_rate=0.0)
    """
    return ErrorRates(
        miss_rate=float(np.count_nonzero(trials.bona_fide <= threshold)) / trials.bona_fide.size,
        false_alarm_rate=float(np.count_nonzero(trials.spoof > threshold)) / trials.spoof.size,
    )


def accuracy_percent(scores: ArrayLike, is_bona_fide: ArrayLike) -> float:
    """Return how many of 100 utterances are judged rightly, bona fide meaning log-odds above 0; range [0, 100].

    In ASVspoof 2019 LA, with nine spoof utterances to one bona fide, "always spoof" has 90 %: read it beside the EER.
    One class is enough. Raises UserError for scores that are not finite or where there are none, ValueError for shapes
    or types that do not fit.

    >>> accuracy_percent([2.0, -1.0, 0.0, -3.0], [True, True, False, False])
    75.0
    """
    values, bona_fide = checked(scores, is_bona_fide)
    if values.size == 0:
        raise UserError("the accuracy needs at least one utterance, found 0: check the protocol")
    return float(np.count_nonzero((values > 0) == bona_fide)) / values.size * 100
