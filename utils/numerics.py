"""Which arithmetic this version computes with: a number that rises where the same input gives other bits.

Checkpoints and config.yaml keep it. A run that was begun under an older number goes on under this one, and is told what
of that differs for it. Score files keep `SCORES_AS_OF`: a half-finished one is never continued under another number.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

NUMERICS = 5
SCORES_AS_OF = 2
"""The last number that changed what the same weights score: with later ones no finished score is computed again."""


@dataclass(frozen=True)
class Difference:
    """A sentence that a person with a run of before understands, and which runs it is about.

    `concerns` has the values of a setting with which a run computes differently, by the setting's name; nothing: all.
    """

    sentence: str
    concerns: Mapping[str, Container[Any]] = field(default_factory=dict)

    def is_about(self, settings: Mapping[str, Any]) -> bool:
        """Whether a run with these settings computes differently; one that does not say a setting may."""
        return all(name not in settings or settings[name] in values for name, values in self.concerns.items())


_BF16 = {"precision": ("bf16",)}
_TWO_OR_MORE, _FOUR_OR_MORE = range(2, 1 << 62), range(4, 1 << 62)
CHANGES: dict[int, tuple[Difference, ...]] = {
    2: (
        Difference("audio of other rates than 16,000 Hz is resampled by soxr, where it aliased at up to -9 dB before"),
        Difference(
            "--scheduler plateau lowers the rate one epoch later, as torch does: after more than --plateau_patience "
            "epochs without a new best one, those so far counted anew",
            {"scheduler": ("plateau",)},
        ),
        Difference(
            "with --precision bf16 every detector decides in float32 (its last layers made one score of many in "
            "bfloat16)",
            _BF16,
        ),
        Difference(
            "aasist and aasist_l on a CPU train with batch norm summed in float64 (its variances were up to 3 % too "
            "small)",
            {"model_type": ("aasist", "aasist_l")},
        ),
    ),
    3: (
        Difference(
            "with --precision bf16 validation runs in fp32, as --eval and --score do: its figures are not quite "
            "comparable with those of the epochs so far, which were validated in bfloat16",
            _BF16,
        ),
        Difference(
            "at the end of training --swa computes the batch-norm statistics of its mean anew, by a pass over the "
            "training part, where it took the mean of those of the epochs before",
            {"swa": (True,)},
        ),
    ),
    4: (
        Difference(
            "with four batches a step and more (--accumulate_steps) gradients are added in pairs, so that any number "
            "of processes has the same bits: the last bits differ from those of adding one after the other",
            {"accumulate_steps": _FOUR_OR_MORE},
        ),
    ),
    5: (
        Difference(
            "with two batches a step and more (--accumulate_steps) a vocoder's spectral norm moves its vectors once for"
            " all of them, as for one large batch, where each batch moved them further before",
            {"model_type": ("hifigan",), "accumulate_steps": _TWO_OR_MORE},
        ),
    ),
}
"""What each number above 1 changed."""


def changes_since(before: int, settings: Mapping[str, Any]) -> list[str]:
    """Return what this version computes differently from one with the number `before` for a run with these settings.

    Nothing where it is the same.

    >>> changes_since(NUMERICS, {"precision": "bf16"})
    []
    >>> changes_since(2, {"precision": "fp32", "swa": False, "accumulate_steps": 1})
    []
    """
    if before > NUMERICS:
        return [f"it was computed by a later version of this program (numerics {before}, this one has {NUMERICS})"]
    later = [change for number in range(before + 1, NUMERICS + 1) for change in CHANGES[number]]
    return [change.sentence for change in later if change.is_about(settings)]
