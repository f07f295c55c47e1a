"""What a detector's errors cost in ASVspoof 5, track 1: minDCF at the best threshold, actDCF at the one for true LLRs.

Both are normalised by the cost of the better of two detectors that do not listen (accept all, reject all): 0 is
perfect, and a minDCF is at most 1. Source: calculate_modules.py and calculate_metrics.py in the evaluation-package of
asvspoof-challenge/asvspoof5, which cite equations 3 and 4 of the evaluation plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from utils.scores.error_curve import ErrorCurve, ScoredTrials

SPOOF_PRIOR = 0.05
MISS_COST = 1.0
FALSE_ALARM_COST = 10.0
_MISS_WEIGHT = MISS_COST * (1 - SPOOF_PRIOR)
_FALSE_ALARM_WEIGHT = FALSE_ALARM_COST * SPOOF_PRIOR
_WITHOUT_LISTENING = min(_MISS_WEIGHT, _FALSE_ALARM_WEIGHT)

DECISION_THRESHOLD = -math.log(_MISS_WEIGHT / _FALSE_ALARM_WEIGHT)
"""-ln 1.9 = -0.6419 nats: from here on, accepting costs less than rejecting, if the score is a log-likelihood ratio."""


@dataclass(frozen=True)
class OperatingPoint:
    """The error rates (fractions) and the normalised `cost` at one threshold."""

    cost: float
    threshold: float
    miss_rate: float
    false_alarm_rate: float


def min_dcf(curve: ErrorCurve) -> OperatingPoint:
    """Return the lowest cost that any threshold gives, in [0, 1], at the lowest threshold that gives it.

    (0.95 x misses + 0.5 x false alarms) / 0.5, the rates as fractions.
    """
    costs = _normalised(curve.miss_rate, curve.false_alarm_rate)
    lowest = int(np.argmin(costs))
    return OperatingPoint(
        float(costs[lowest]),
        float(curve.thresholds[lowest]),
        float(curve.miss_rate[lowest]),
        float(curve.false_alarm_rate[lowest]),
    )


def actual_dcf(trials: ScoredTrials) -> OperatingPoint:
    """Return the cost at DECISION_THRESHOLD, in [0, 2.9]: it reads the scores as log-likelihood ratios (natural log).

    At or above the threshold counts as accepted, as in the official package; on the curve it is above.
    """
    miss_rate = np.count_nonzero(trials.bona_fide < DECISION_THRESHOLD) / trials.bona_fide.size
    false_alarm_rate = np.count_nonzero(trials.spoof >= DECISION_THRESHOLD) / trials.spoof.size
    cost = float(_normalised(np.array([miss_rate]), np.array([false_alarm_rate]))[0])
    return OperatingPoint(cost, DECISION_THRESHOLD, miss_rate, false_alarm_rate)


def _normalised(miss_rate: np.ndarray, false_alarm_rate: np.ndarray) -> np.ndarray:
    return (_MISS_WEIGHT * miss_rate + _FALSE_ALARM_WEIGHT * false_alarm_rate) / _WITHOUT_LISTENING
