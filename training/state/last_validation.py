"""The scores of the last validation, kept in the state for a DET curve and a histogram from any checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class LastValidation:
    """What validation after `step` steps gave: `scores` (utterances,) float32 are log-odds, higher for bona fide.

    `is_bona_fide` (utterances,) are booleans, in the same order.
    """

    step: int
    scores: Tensor
    is_bona_fide: Tensor

    def as_dict(self) -> dict[str, Any]:
        """Return it as tensors and plain values, for payloads."""
        return {"step": self.step, "scores": self.scores, "is_bona_fide": self.is_bona_fide}


def last_validation_in(payload: Mapping[str, Any]) -> LastValidation | None:
    """Return what a payload holds; None in checkpoints of earlier versions and before the first validation."""
    stored = payload.get("last_validation")
    return LastValidation(**stored) if stored else None
