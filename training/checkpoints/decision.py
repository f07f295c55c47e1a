"""How to decide with a detector: the calibration that its validation scores gave, or why there is no verdict.

No torch needed, nor NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from utils.scores.verdicts import EVEN_PRIOR, VerdictRule
from utils.stored_values import Check, OddValueError, is_count, is_number, is_rate, optional, require

NO_DECISION = (
    "no stored calibration: the checkpoint was written by an earlier version, or its weights were not validated"
)
LEAST_UTTERANCES = 10
"""Of each class, for a verdict: where 10 utterances show no error, 26 % may still be wrong (0.05 ** 0.1 = 0.74)."""


@dataclass(frozen=True)
class Decision:
    """What validation after `step` steps says about deciding; scores are log-odds.

    `scale` x score + `offset` is a calibrated log-likelihood ratio (natural log); both are None where the scores allow
    no fit. An utterance is bona fide where that is above the log-odds of the prior (`rule`). `threshold` is the score
    where it turns for an even prior, or, where there is no verdict, the middle of the interval of the EER.

    `miss_rate` and `false_alarm_rate`, fractions, are those of the validation at that threshold, on `num_bona_fide` and
    `num_spoof` utterances. They are None in files of earlier versions, whose `threshold` is that of the EER. It stands
    at the edge of the spoof scores where validation separates the classes, and is not used.
    """

    step: int
    threshold: float
    scale: float | None
    offset: float | None
    num_bona_fide: int | None = None
    num_spoof: int | None = None
    miss_rate: float | None = None
    false_alarm_rate: float | None = None

    @property
    def why_undecided(self) -> str:
        """Why there is no verdict, "" where there is one."""
        if self.scale is None or self.offset is None:
            return "validation gave every utterance the same score, so that there is no calibration"
        if not (math.isfinite(self.scale) and math.isfinite(self.offset)):
            return f"the stored calibration is no number (slope {self.scale}, offset {self.offset})"
        if self.scale <= 0:
            return (
                f"the slope of the calibration is {self.scale:.3g} and not positive: on validation, bona fide speech "
                "had no higher scores than spoof"
            )
        counts = [count for count in (self.num_bona_fide, self.num_spoof) if count is not None]
        if counts and min(counts) < LEAST_UTTERANCES:
            return (
                f"validation saw {self.num_bona_fide:,} bona fide and {self.num_spoof:,} spoof utterances, and a "
                f"verdict needs {LEAST_UTTERANCES} of each"
            )
        return ""

    def rule(self, bona_fide_prior: float = EVEN_PRIOR) -> VerdictRule | None:
        """Return how verdicts are made for a prior in (0, 1), None where `why_undecided` says why there are none.

        >>> rule = Decision(7, 0.5, 2.0, -1.0).rule()
        >>> rule.threshold, rule.verdict(0.75)
        (0.5, 'bona fide')
        """
        if self.why_undecided:
            return None
        assert self.scale is not None and self.offset is not None
        return VerdictRule(self.scale, self.offset, bona_fide_prior)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for records and payloads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> Decision | None:
        """Return what `as_dict` gave; None for None. Raises OddValueError for anything else.

        Fields that this version does not know are passed over; those that earlier versions did not write are None.
        """
        if stored is None:
            return None
        require(stored, _REQUIRED)
        require({**dict.fromkeys(_LATER), **stored}, _LATER)
        values: dict[str, Any] = {name: stored.get(name) for name in (*_REQUIRED, *_LATER)}
        if len({values[name] is None for name in _LATER}) > 1:
            raise OddValueError(f"it has some of {', '.join(_LATER)} and not all")
        return cls(**values)


_REQUIRED: Mapping[str, Check] = {
    "step": is_count,
    "threshold": is_number,
    "scale": optional(is_number),
    "offset": optional(is_number),
}
_LATER: Mapping[str, Check] = {
    "num_bona_fide": optional(is_count),
    "num_spoof": optional(is_count),
    "miss_rate": optional(is_rate),
    "false_alarm_rate": optional(is_rate),
}
