"""Minimum t-DCF: what a detector costs as the gate of a speaker verification system (ASV) whose errors are given.

Two definitions are in use and give different numbers for the same scores, so each has its name here:

* legacy, of ASVspoof 2019 (Kinnunen et al., Odyssey 2018; evaluation plan 2019): 0 is a perfect detector;
* revised, of ASVspoof 2021 (Kinnunen et al., IEEE/ACM TASLP 28, 2020, equations 10 and 11): the ASV's own errors count,
  so that a perfect detector is above 0.

Both are at most 1, the cost of the better of accepting and rejecting everything. Sources: compute_tDCF_legacy and
compute_tDCF of asvspoof-challenge/2021, eval-package/eval_metrics.py; the cost model from its config.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from utils.errors import UserError
from utils.scores.error_curve import ErrorCurve, ScoredTrials, error_curve
from utils.scores.metrics import equal_error_rate_of

SPOOF_PRIOR = 0.05
TARGET_PRIOR = (1 - SPOOF_PRIOR) * 0.99
NONTARGET_PRIOR = (1 - SPOOF_PRIOR) * 0.01
MISS_COST = 1.0
FALSE_ALARM_COST = 10.0
SPOOF_FALSE_ALARM_COST = 10.0


@dataclass(frozen=True)
class AsvErrorRates:
    """The errors of the ASV system behind the detector, as fractions.

    `false_alarm_rate` is that of accepted nontargets, `miss_rate` that of rejected targets, `spoof_false_alarm_rate`
    that of accepted spoof utterances.
    """

    false_alarm_rate: float
    miss_rate: float
    spoof_false_alarm_rate: float

    def __post_init__(self) -> None:
        rates = (self.false_alarm_rate, self.miss_rate, self.spoof_false_alarm_rate)
        if not all(0 <= rate <= 1 for rate in rates):
            raise ValueError(f"ASV error rates are fractions in [0, 1], found {rates}")


DEFAULT_ASV_RATES = AsvErrorRates(
    false_alarm_rate=0.01881016557566423,
    miss_rate=0.01880141010575793,
    spoof_false_alarm_rate=0.4607082907604729,
)
"""Those of the organizers' ASV in ASVspoof 5, pooled: calculate_metrics.py of its evaluation-package."""


def asv_error_rates(target: ArrayLike, nontarget: ArrayLike, spoof: ArrayLike) -> AsvErrorRates:
    """Return the error rates of an ASV system at the threshold of its own EER, of targets against nontargets.

    Scores `(trials,)` each; at or above the threshold is accepted (obtain_asv_error_rates of the packages above).
    Raises UserError for scores that are not finite and where one of the three kinds is missing.
    """
    kinds = {"target": target, "nontarget": nontarget, "spoof": spoof}
    scores = {kind: np.asarray(values, dtype=np.float64) for kind, values in kinds.items()}
    for kind, values in scores.items():
        if values.size == 0 or not np.isfinite(values).all():
            raise UserError(
                "the ASV error rates need finite scores of target, nontarget and spoof trials, found "
                f"{values.size:,} {kind} scores{', some not finite' if values.size else ''}: check --asv_scores"
            )
    threshold = equal_error_rate_of(error_curve(ScoredTrials(scores["target"], scores["nontarget"]))).threshold
    return AsvErrorRates(
        false_alarm_rate=float(np.mean(scores["nontarget"] >= threshold)),
        miss_rate=float(np.mean(scores["target"] < threshold)),
        spoof_false_alarm_rate=float(np.mean(scores["spoof"] >= threshold)),
    )


def min_tdcf_legacy(curve: ErrorCurve, asv: AsvErrorRates) -> float:
    """Return the minimum t-DCF of ASVspoof 2019, in [0, 1].

    Raises UserError where scores are decisions (fewer than three different ones) or where the ASV's errors leave the
    detector nothing to prevent or nothing to spoil.
    """
    miss_weight = TARGET_PRIOR * MISS_COST * (1 - asv.miss_rate) - NONTARGET_PRIOR * FALSE_ALARM_COST * (
        asv.false_alarm_rate
    )
    false_alarm_weight = SPOOF_FALSE_ALARM_COST * SPOOF_PRIOR * asv.spoof_false_alarm_rate
    _require_a_cost(curve, asv, miss_weight, false_alarm_weight)
    costs = miss_weight * curve.miss_rate + false_alarm_weight * curve.false_alarm_rate
    return float(costs.min() / min(miss_weight, false_alarm_weight))


def min_tdcf_revised(curve: ErrorCurve, asv: AsvErrorRates) -> float:
    """Return the minimum t-DCF of ASVspoof 2021, in (0, 1]; raises UserError as `min_tdcf_legacy` does."""
    constant, miss_weight, false_alarm_weight = revised_coefficients(asv)
    _require_a_cost(curve, asv, miss_weight, false_alarm_weight)
    costs = constant + miss_weight * curve.miss_rate + false_alarm_weight * curve.false_alarm_rate
    return float(costs.min() / (constant + min(miss_weight, false_alarm_weight)))


def revised_coefficients(asv: AsvErrorRates) -> tuple[float, float, float]:
    """Return C0, C1 and C2 of the revised t-DCF: what the ASV alone costs, and the weights of misses and false alarms.

    >>> [round(value, 4) for value in revised_coefficients(DEFAULT_ASV_RATES)]
    [0.0195, 0.921, 0.2304]
    """
    constant = TARGET_PRIOR * MISS_COST * asv.miss_rate + NONTARGET_PRIOR * FALSE_ALARM_COST * asv.false_alarm_rate
    return (
        constant,
        TARGET_PRIOR * MISS_COST - constant,
        SPOOF_PRIOR * SPOOF_FALSE_ALARM_COST * asv.spoof_false_alarm_rate,
    )


def _require_a_cost(curve: ErrorCurve, asv: AsvErrorRates, miss_weight: float, false_alarm_weight: float) -> None:
    if not curve.has_soft_scores:
        raise UserError(
            "since it needs scores, found fewer than 3 different values: these are decisions; "
            "write the detector's log-odds instead"
        )
    if miss_weight <= 0 or false_alarm_weight <= 0:
        raise UserError(
            f"since it is not defined with these ASV error rates: nontargets accepted {asv.false_alarm_rate:.4f}, "
            f"targets missed {asv.miss_rate:.4f}, spoof accepted {asv.spoof_false_alarm_rate:.4f}: check --asv_scores"
        )
