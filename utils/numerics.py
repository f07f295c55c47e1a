"""Which arithmetic this version computes with: a number that rises where the same input gives other bits.

Checkpoints, config.yaml and score files keep it. A run that was begun under an older number goes on under this one, and
is told what differs; a half-finished score file is never continued under another number.
"""

from __future__ import annotations

NUMERICS = 2
CHANGES: dict[int, tuple[str, ...]] = {
    2: (
        "audio of other rates than 16,000 Hz is resampled by soxr, where it aliased at up to -9 dB before",
        "--scheduler plateau lowers the rate one epoch later, as torch does: after more than --plateau_patience epochs "
        "without a new best one, those so far counted anew",
    ),
}
"""What each number above 1 changed, in sentences that a person with a run of before understands."""


def changes_since(before: int) -> list[str]:
    """Return what this version computes differently from one with the number `before`; nothing where it is the same.

    >>> changes_since(NUMERICS)
    []
    """
    if before > NUMERICS:
        return [f"it was computed by a later version of this program (numerics {before}, this one has {NUMERICS})"]
    return [change for number in range(before + 1, NUMERICS + 1) for change in CHANGES[number]]
