"""How well scores tell bona fide from spoof: the equal error rate as the ASVspoof challenges compute it, and accuracy.

Scores are log-odds of bona fide (log p1 - log p0): higher is bona fide, everywhere. Nothing here has a default for what
cannot be computed: NaN, infinity or a missing class is an error, never 50 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.errors import UserError

# What the official code puts below the lowest score, for the threshold that accepts everything.
_BELOW_THE_LOWEST_SCORE = 0.001


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
    values, bona_fide = _checked(scores, is_bona_fide)
    bona_fide_count = int(np.count_nonzero(bona_fide))
    spoof_count = values.size - bona_fide_count
    if bona_fide_count == 0 or spoof_count == 0:
        raise UserError(
            f"the EER needs utterances of both classes, found {bona_fide_count:,} bona fide and {spoof_count:,} spoof: "
            "check the key column of the protocol, and that the part used is large enough"
        )
    ordered, ordered_bona_fide = _ascending(values, bona_fide)
    rejected_bona_fide = np.cumsum(ordered_bona_fide)
    rejected_spoof = np.arange(1, values.size + 1) - rejected_bona_fide
    # One threshold more than there are scores: the first accepts everything.
    miss_rate = np.concatenate(([0.0], rejected_bona_fide / bona_fide_count))
    false_alarm_rate = np.concatenate(([1.0], (spoof_count - rejected_spoof) / spoof_count))
    thresholds = np.concatenate(([ordered[0] - _BELOW_THE_LOWEST_SCORE], ordered))
    closest = int(np.argmin(np.abs(miss_rate - false_alarm_rate)))
    return EqualErrorRate(
        eer_percent=float(miss_rate[closest] + false_alarm_rate[closest]) / 2 * 100,
        threshold=float(thresholds[closest]),
    )


def accuracy_percent(scores: ArrayLike, is_bona_fide: ArrayLike) -> float:
    """Return how many of 100 utterances are judged rightly, bona fide meaning log-odds above 0; range [0, 100].

    In ASVspoof 2019 LA, with nine spoof utterances to one bona fide, "always spoof" has 90 %: read it beside the EER.
    One class is enough. Raises UserError for scores that are not finite or where there are none, ValueError for shapes
    or types that do not fit.

    >>> accuracy_percent([2.0, -1.0, 0.0, -3.0], [True, True, False, False])
    75.0
    """
    values, bona_fide = _checked(scores, is_bona_fide)
    if values.size == 0:
        raise UserError("the accuracy needs at least one utterance, found 0: check the protocol")
    return float(np.count_nonzero((values > 0) == bona_fide)) / values.size * 100


def _checked(scores: ArrayLike, is_bona_fide: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = np.asarray(scores, dtype=np.float64)
    bona_fide = np.asarray(is_bona_fide)
    if values.ndim != 1 or values.shape != bona_fide.shape:
        raise ValueError(
            f"scores and is_bona_fide must both be (utterances,) in shape, found {values.shape} and {bona_fide.shape}"
        )
    if bona_fide.size and bona_fide.dtype != np.bool_:
        raise ValueError(f"is_bona_fide must hold booleans, found {bona_fide.dtype}: compare the labels with 1")
    unusable = np.flatnonzero(~np.isfinite(values))
    if unusable.size:
        first = int(unusable[0])
        raise UserError(
            f"scores must be finite, found {unusable.size:,} of {values.size:,} that are not, "
            f"the first at index {first} ({values[first]}): the detector has diverged; "
            "go on from an earlier checkpoint, or lower the learning rate"
        )
    return values, bona_fide.astype(np.bool_)


def _ascending(
    values: NDArray[np.float64], bona_fide: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Sort stably with all bona fide scores put before all spoof ones, which decides the order of equal scores."""
    values = np.concatenate((values[bona_fide], values[~bona_fide]))
    bona_fide = np.arange(values.size) < np.count_nonzero(bona_fide)
    order = np.argsort(values, kind="stable")
    return values[order], bona_fide[order]
