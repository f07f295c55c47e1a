"""Scores for tests of metrics: one small case worked by hand, and seeded ones of any size."""

from __future__ import annotations

import numpy as np

from utils.scores.error_curve import ErrorCurve, ScoredTrials, error_curve

# In ascending order s s B s B B, at -3 -2 -1 0.5 1 2. From the threshold below all of them upwards:
#   misses       0    0    0   1/3  1/3  2/3  1
#   false alarms 1   2/3  1/3  1/3   0    0   0
SIX = ScoredTrials(bona_fide=np.array([2.0, 1.0, -1.0]), spoof=np.array([0.5, -2.0, -3.0]))
SIX_CURVE = error_curve(SIX)


def drawn(seed: int, utterances: int = 300, decimals: int | None = None) -> ScoredTrials:
    """Return scores as of a detector with an EER near 16 %, one utterance in ten bona fide; rounding makes ties."""
    generator = np.random.default_rng(seed)
    is_bona_fide = generator.random(utterances) < 0.1
    is_bona_fide[:2] = (True, False)
    scores = generator.normal(np.where(is_bona_fide, 1.0, -1.0))
    return ScoredTrials.of(scores if decimals is None else scores.round(decimals), is_bona_fide)


def curve_of(seed: int, decimals: int | None = None) -> ErrorCurve:
    return error_curve(drawn(seed, decimals=decimals))


def counted_rates(trials: ScoredTrials) -> list[tuple[float, float]]:
    """Return misses and false alarms at every threshold of scores without ties, counted one utterance at a time."""
    everything = sorted([*trials.bona_fide.tolist(), *trials.spoof.tolist()])
    rates = [(0.0, 1.0)]
    for threshold in everything:
        missed = sum(score <= threshold for score in trials.bona_fide.tolist())
        accepted = sum(score > threshold for score in trials.spoof.tolist())
        rates.append((missed / trials.bona_fide.size, accepted / trials.spoof.size))
    return rates
