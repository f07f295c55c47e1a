"""How to decide with a detector: the threshold and the calibration that its validation scores gave. No torch needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

NO_THRESHOLD = (
    "no stored threshold: the checkpoint was written by an earlier version, or its weights were not validated"
)


@dataclass(frozen=True)
class Decision:
    """What validation after `step` steps says about deciding; scores are log-odds.

    An utterance is accepted as bona fide where its score is above `threshold`, which is that of the EER. `scale` x
    score + `offset` is a calibrated log-likelihood ratio (natural log); both are None where the scores allow no fit.
    """

    step: int
    threshold: float
    scale: float | None
    offset: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for records and payloads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> Decision | None:
        """Return what `as_dict` gave; None for None. Raises TypeError, ValueError or KeyError for anything else."""
        if stored is None:
            return None
        scale, offset = stored["scale"], stored["offset"]
        return cls(
            step=int(stored["step"]),
            threshold=float(stored["threshold"]),
            scale=None if scale is None else float(scale),
            offset=None if offset is None else float(offset),
        )
