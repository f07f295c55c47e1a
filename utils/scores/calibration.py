"""Scores as log-likelihood ratios: Cllr says how far they are from it, and a linear calibration brings them there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from utils.errors import UserError
from utils.scores.error_curve import Numbers, ScoredTrials

_MOST_STEPS = 100
_MOST_HALVINGS = 60
# What a step would lower the cost by, in nats and twice: Newton's next step would then be lost in rounding.
_NEARLY_THERE = 1e-10


def cllr(trials: ScoredTrials) -> float:
    """Return the cost of the scores read as log-likelihood ratios (natural log), in bits; 0 is perfect.

    The same score for everything costs 1 bit where that score is 0, more elsewhere. Source: Brummer and du Preez,
    Computer Speech & Language 20 (2006); calculate_CLLR of asvspoof-challenge/asvspoof5, evaluation-package, whose exp
    overflows to infinity for scores below -709 where this stays exact.
    """
    missed = np.mean(_softplus(-trials.bona_fide))
    accepted = np.mean(_softplus(trials.spoof))
    return float(missed + accepted) / 2 / math.log(2)


@dataclass(frozen=True)
class LinearCalibration:
    """Log-likelihood ratio (natural log) = `scale` x score + `offset`.

    `scale` is above 0 for scores that are higher for bona fide. At 0 or below they carry nothing, or the wrong sign:
    calibrating cannot mend that, and what comes out would decide against the scores.
    """

    scale: float
    offset: float


def fit_linear_calibration(
    scores: ArrayLike, is_bona_fide: ArrayLike, bona_fide_prior: float = 0.5
) -> LinearCalibration:
    """Fit a calibration on `scores` `(utterances,)` with the truth `is_bona_fide`; the same input gives the same bits.

    It minimises the cross-entropy of logistic regression, each class weighted as a whole by `bona_fide_prior`, in
    (0, 1), and its rest, however many utterances it has; the prior is where the calibration is to be best. At 0.5 that
    is Cllr. Source: Brummer et al., IEEE TASLP 15 (2007), section III. The classes are soft as in Platt (1999), section
    2.2: a bona fide utterance counts as such by (n + 1) / (n + 2), n the size of its class, so that separable scores
    (common on the development part of ASVspoof 2019) have a calibration too. Newton's method.

    Scores that separate the classes leave open where between them the ratio turns, and the wider class would draw it to
    its side, even beyond the gap. It turns in the middle then, whatever the prior: there a logistic regression goes
    whose penalty fades (Rosset, Zhu and Hastie, "Margin maximizing loss functions", NIPS 16 (2003), theorem 2.1). The
    slope is then the only parameter, fitted to the same soft classes at even priors.

    Raises UserError for scores that are not finite, where a class is missing and where all scores are the same,
    ValueError for shapes, types or a prior that do not fit.
    """
    if not 0 < bona_fide_prior < 1:
        raise ValueError(f"bona_fide_prior must lie between 0 and 1, found {bona_fide_prior}")
    trials = ScoredTrials.of(scores, is_bona_fide, "a calibration")
    values = np.concatenate((trials.bona_fide, trials.spoof))
    if values.min() == values.max():
        raise UserError(
            f"a calibration needs scores that differ, found {values[0]} for all {values.size:,} utterances: "
            "the detector has learned nothing; train on, or raise the learning rate"
        )
    lowest_bona_fide, highest_spoof = float(trials.bona_fide.min()), float(trials.spoof.max())
    if lowest_bona_fide > highest_spoof:
        middle = highest_spoof + (lowest_bona_fide - highest_spoof) / 2
        return _turning_at(middle, values, *_weights_and_targets(trials, 0.5))
    weights, targets = _weights_and_targets(trials, bona_fide_prior)
    # Both parameters are then of one size whatever the scores are; without squares, which overflow sooner.
    centre = float(np.mean(values))
    spread = float(np.mean(np.abs(values - centre)))
    scale, log_odds = _newton(np.stack(((values - centre) / spread, np.ones(values.size))), weights, targets)
    prior_log_odds = math.log(bona_fide_prior / (1 - bona_fide_prior))
    return LinearCalibration(scale=scale / spread, offset=log_odds - scale * centre / spread - prior_log_odds)


def _turning_at(middle: float, values: Numbers, weights: Numbers, targets: Numbers) -> LinearCalibration:
    """Return the calibration of the lowest cost among those whose ratio is 0 at `middle`."""
    spread = float(np.mean(np.abs(values - middle)))
    (scale,) = _newton(((values - middle) / spread)[np.newaxis], weights, targets)
    return LinearCalibration(scale=scale / spread, offset=-scale / spread * middle)


def _weights_and_targets(trials: ScoredTrials, bona_fide_prior: float) -> tuple[Numbers, Numbers]:
    """Return what each utterance weighs, summing to 1, and how much of it is bona fide; bona fide utterances first."""
    sizes = [trials.bona_fide.size, trials.spoof.size]
    priors = [bona_fide_prior, 1 - bona_fide_prior]
    sure = [(sizes[0] + 1) / (sizes[0] + 2), 1 / (sizes[1] + 2)]
    return np.repeat([prior / size for prior, size in zip(priors, sizes, strict=True)], sizes), np.repeat(sure, sizes)


def _newton(features: Numbers, weights: Numbers, targets: Numbers) -> tuple[float, ...]:
    """Minimise the weighted cross-entropy of sigmoid(parameters x features), `(parameters, utterances)`.

    It is convex, so that a halved step always helps. Sums are NumPy's own: those of a BLAS depend on its threads.
    """
    parameters = np.zeros(len(features))
    cost = _cross_entropy(parameters, features, weights, targets)
    for _ in range(_MOST_STEPS):
        probabilities = _sigmoid((parameters[:, np.newaxis] * features).sum(axis=0))
        gradient = (features * (weights * (probabilities - targets))).sum(axis=1)
        curvature = weights * probabilities * (1 - probabilities)
        hessian = np.array([[(curvature * one * other).sum() for other in features] for one in features])
        step = np.linalg.solve(hessian, gradient)
        if float((gradient * step).sum()) < _NEARLY_THERE:
            parameters = parameters - step
            break
        for halving in range(_MOST_HALVINGS):
            candidate = parameters - step / 2**halving
            lower = _cross_entropy(candidate, features, weights, targets)
            if lower < cost:
                parameters, cost = candidate, lower
                break
        else:
            break  # no step lowers the cost: this is the minimum, as far as the cost can tell
    return tuple(map(float, parameters))


def _cross_entropy(parameters: Numbers, features: Numbers, weights: Numbers, targets: Numbers) -> float:
    log_odds = (parameters[:, np.newaxis] * features).sum(axis=0)
    return float((weights * (_softplus(log_odds) - targets * log_odds)).sum())


def _sigmoid(log_odds: Numbers) -> Numbers:
    return 0.5 + 0.5 * np.tanh(log_odds / 2)


def _softplus(values: Numbers) -> Numbers:
    """Return log(1 + exp(value)) without overflow; several times faster than NumPy's logaddexp."""
    return np.maximum(values, 0.0) + np.log1p(np.exp(-np.abs(values)))
