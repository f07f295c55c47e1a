"""The threshold and the calibration of a validation, from its scores; the same scores give the same bits."""

from __future__ import annotations

from numpy.typing import ArrayLike

from training.checkpoints.decision import Decision
from utils.errors import UserError
from utils.scores.calibration import fit_linear_calibration


def decision_from(step: int, threshold: float, scores: ArrayLike, is_bona_fide: ArrayLike) -> Decision:
    """Return how to decide after `step` steps: the EER's `threshold`, and a calibration fitted on validation `scores`.

    `scores` `(utterances,)` are log-odds and `is_bona_fide` `(utterances,)` booleans. The calibration is a logistic
    regression with both classes weighted alike (`utils.scores.calibration`), None where all scores are the same.

    >>> decision_from(7, 0.5, [1.0, 1.0], [True, False])
    Decision(step=7, threshold=0.5, scale=None, offset=None)
    """
    try:
        fitted = fit_linear_calibration(scores, is_bona_fide)
    except UserError:
        return Decision(step, threshold, None, None)
    return Decision(step, threshold, fitted.scale, fitted.offset)
