"""Scores of both classes, checked once, and the error rates that every threshold on them gives.

What the challenges measure derives from these two: one sort, and then vectors. Nothing here has a default for what
cannot be computed: NaN, infinity or a missing class is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.errors import UserError

Numbers = NDArray[np.float64]

# What the official code puts below the lowest score, for the threshold that accepts everything.
_BELOW_THE_LOWEST_SCORE = 0.001


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """Finite scores `(utterances of the class,)` of bona fide and of spoof utterances, at least one of each.

    Higher is bona fide. Made by `ScoredTrials.of`, which checks.
    """

    bona_fide: Numbers
    spoof: Numbers

    @classmethod
    def of(cls, scores: ArrayLike, is_bona_fide: ArrayLike, measure: str = "the EER") -> ScoredTrials:
        """Divide `scores` `(utterances,)` by the truth `is_bona_fide` `(utterances,)`, booleans.

        Raises UserError, which names `measure`, for scores that are not finite and where a class is missing, ValueError
        for shapes or types that do not fit.
        """
        values, bona_fide = checked(scores, is_bona_fide)
        trials = cls(bona_fide=values[bona_fide], spoof=values[~bona_fide])
        if trials.bona_fide.size == 0 or trials.spoof.size == 0:
            raise UserError(
                f"{measure} needs utterances of both classes, found {trials.bona_fide.size:,} bona fide and "
                f"{trials.spoof.size:,} spoof: check the key column of the protocol, and that the part used is large "
                "enough"
            )
        return trials

    @property
    def flipped(self) -> ScoredTrials:
        """The same trials with the sign of every score turned."""
        return ScoredTrials(-self.bona_fide, -self.spoof)


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """Both error rates at each threshold, `(utterances + 1,)` each; an utterance is accepted above the threshold.

    `miss_rate` is the fraction of bona fide utterances rejected and rises from 0 to 1, `false_alarm_rate` that of spoof
    utterances accepted and falls from 1 to 0. The first threshold lies below all scores and accepts everything.
    """

    miss_rate: Numbers
    false_alarm_rate: Numbers
    thresholds: Numbers

    @property
    def has_soft_scores(self) -> bool:
        """Whether there are three different scores or more: fewer are decisions, which the t-DCF packages refuse."""
        changes = int(np.count_nonzero(np.diff(self.thresholds[1:])))
        return changes >= 2


def error_curve(trials: ScoredTrials) -> ErrorCurve:
    """Return the error rates at every score as threshold, in ascending order.

    Source: compute_det_curve of asvspoof-challenge/2021, eval-package/eval_metrics.py, as in the 2019 and ASVspoof 5
    packages. No line is drawn between thresholds. Of equal scores, bona fide ones are rejected first, so that ties
    count against the detector.
    """
    num_bona_fide, num_spoof = trials.bona_fide.size, trials.spoof.size
    # Bona fide first: a stable sort then decides the order of equal scores.
    values = np.concatenate((trials.bona_fide, trials.spoof))
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    rejected_bona_fide = np.cumsum(order < num_bona_fide)
    rejected_spoof = np.arange(1, values.size + 1) - rejected_bona_fide
    return ErrorCurve(
        miss_rate=np.concatenate(([0.0], rejected_bona_fide / num_bona_fide)),
        false_alarm_rate=np.concatenate(([1.0], (num_spoof - rejected_spoof) / num_spoof)),
        thresholds=np.concatenate(([ordered[0] - _BELOW_THE_LOWEST_SCORE], ordered)),
    )


def checked(scores: ArrayLike, is_bona_fide: ArrayLike) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return scores and truth as arrays `(utterances,)`, one class or both.

    Raises UserError for scores that are not finite, ValueError for shapes or types that do not fit.
    """
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
