"""What a detector's scores mean: the rule of its verdicts and its errors on validation, or why it gives none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.checkpoints.decision import Decision
from utils.scores.error_curve import ScoredTrials
from utils.scores.metrics import ErrorRates, error_rates_above
from utils.scores.verdicts import EVEN_PRIOR, VerdictRule


@dataclass(frozen=True)
class Judge:
    """How scores become verdicts by `rule`, or, where that is None, `why_not`.

    `source` says where the calibration came from. `on_validation` has both error rates of the rule on the utterances
    that the calibration was fitted on, None where the file does not tell them.
    """

    rule: VerdictRule | None = None
    why_not: str = ""
    source: str = ""
    on_validation: ErrorRates | None = None

    def verdict(self, score: float | None) -> str | None:
        """Return what a score means, None where there is no score or no rule."""
        return None if score is None or self.rule is None else self.rule.verdict(score)

    def llr(self, score: float) -> float | None:
        """Return the calibrated log-likelihood ratio (natural log), None without a rule."""
        return self.rule.llr(score) if self.rule else None

    def lines(self) -> list[str]:
        """Return what a person is told about it."""
        if self.rule is None:
            return [f"Threshold: none, and so no verdict: {self.why_not}"]
        rates = self.on_validation
        errors = rates_text(rates) if rates else "its errors are not stored in this file for this prior"
        return [
            f"Threshold: bona fide above {self.rule.threshold:.6f}, where the calibrated log-likelihood ratio "
            f"{_exceeds(self.rule)}; from {self.source}",
            f"  on the validation that gave it: {errors}",
        ]

    def document(self) -> dict[str, Any]:
        """Return it as plain values, null for what is not known; rates are fractions."""
        rule, rates = self.rule, self.on_validation
        return {
            "threshold": rule.threshold if rule else None,
            "threshold_from": self.source if rule else self.why_not,
            "bona_fide_prior": rule.bona_fide_prior if rule else None,
            "log_likelihood_ratio_above": rule.bar if rule else None,
            "validation_miss_rate": rates.miss_rate if rates else None,
            "validation_false_alarm_rate": rates.false_alarm_rate if rates else None,
        }


def judge_of(
    decision: Decision | None, prior: float, stored_in: str, validation: ScoredTrials | None, why_not: str
) -> Judge:
    """Return the judge that a decision and a prior make; `why_not` says why there is no decision.

    `validation` are the scores that the decision came from, None where the file does not hold them: its errors are then
    known for an even prior only, and not in files of earlier versions.
    """
    if decision is None:
        return Judge(why_not=why_not)
    rule = decision.rule(prior)
    if rule is None:
        return Judge(why_not=decision.why_undecided)
    rates = None
    if validation:
        rates = error_rates_above(validation, rule.threshold)
    elif prior == EVEN_PRIOR and decision.miss_rate is not None and decision.false_alarm_rate is not None:
        rates = ErrorRates(decision.miss_rate, decision.false_alarm_rate)
    return Judge(rule, source=f"validation after step {decision.step:,}, stored in {stored_in}", on_validation=rates)


def rates_text(rates: ErrorRates) -> str:
    """Return both error rates as words.

    >>> rates_text(ErrorRates(0.0125, 0.5))
    '1.25 % of bona fide missed, 50.00 % of spoof accepted'
    """
    return f"{rates.miss_rate:.2%} of bona fide missed, {rates.false_alarm_rate:.2%} of spoof accepted".replace(
        "%", " %"
    )


def _exceeds(rule: VerdictRule) -> str:
    """Return what the ratio must exceed, with the prior that says so; "-0" is 0."""
    return f"exceeds {rule.bar + 0.0:.4g} (--prior {rule.bona_fide_prior:g})"
