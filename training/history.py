"""The figures of the epochs so far: which is the best, and what follows from how long ago that was.

All of it are queries over the history, never saved opinions, so that a stop cannot change an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.checkpoints.record import EpochMetrics


def best_epoch(history: Sequence[EpochMetrics]) -> EpochMetrics | None:
    """Return the epoch with the lowest validation EER; ties go to the lower validation loss, then to the earlier epoch.

    The validation EER on ASVspoof 2019 LA is near 0 for large models from the first epoch on, so ties are the rule.

    >>> best_epoch([]) is None
    True
    """
    return min(history, key=rank, default=None)


def rank(row: EpochMetrics) -> tuple[float, float, int]:
    """Return what sorts epochs from the best on; see `best_epoch`."""
    return row.val_eer, row.val_loss, row.epoch


def is_stalled(epoch: int, best: EpochMetrics | None, patience: int) -> bool:
    """Whether training should end after `epoch` epochs: the last `patience` of them gave no new best one (0: never).

    >>> is_stalled(3, None, patience=0)
    False
    """
    return patience > 0 and epoch - (best.epoch if best else 0) >= patience


def plateau_reductions(history: Sequence[EpochMetrics], patience: int) -> int:
    """Return how often `patience` epochs in a row gave no new best one; each time the count starts anew.

    >>> plateau_reductions([], patience=3)
    0
    """
    reductions = waited = 0
    best: EpochMetrics | None = None
    for row in history:
        if best is None or rank(row) < rank(best):
            best, waited = row, 0
        else:
            waited += 1
        if waited == patience:
            reductions, waited = reductions + 1, 0
    return reductions
