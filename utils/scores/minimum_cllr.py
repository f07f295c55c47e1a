"""Cllr as low as any rising function of the scores could make it: what is lost by telling the classes apart badly.

What Cllr is above that is lost by calibration.
"""

from __future__ import annotations

import numpy as np

from utils.scores.error_curve import Numbers, ScoredTrials


def min_cllr(trials: ScoredTrials) -> float:
    """Return the lowest Cllr in bits, in [0, 1], over all non-decreasing functions of the scores.

    The best of them gives each group of scores that pool-adjacent-violators (PAV) makes the log-likelihood ratio of its
    own counts. Source: Brummer and du Preez, Computer Speech & Language 20 (2006), on the minimum of Cllr; the
    algorithm is that of Ayer et al., Annals of Mathematical Statistics 26 (1955). Equal scores are one group from the
    start.

    >>> round(min_cllr(ScoredTrials.of([2.0, 1.0, -1.0, 0.5, -2.0, -3.0], [True] * 3 + [False] * 3)), 6)
    0.333333
    """
    bona_fide, spoof = _pooled(*_counts_by_score(trials))
    shares = np.stack((bona_fide / trials.bona_fide.size, spoof / trials.spoof.size))
    # The ratio of a group is that of its shares, so that log2(1 + 1 / ratio) is log2(both / own) for either class.
    both = shares.sum(axis=0)
    return sum(_bits(own[own > 0], both[own > 0]) for own in shares) / 2


def _bits(own: Numbers, both: Numbers) -> float:
    return float((own * np.log2(both / own)).sum())


def _counts_by_score(trials: ScoredTrials) -> tuple[Numbers, Numbers]:
    """Return how many of each class have each score, ascending; runs of scores of one class alone are one entry."""
    values = np.concatenate((trials.bona_fide, trials.spoof))
    _, places = np.unique(values, return_inverse=True)
    size = int(places.max()) + 1
    bona_fide = np.bincount(places[: trials.bona_fide.size], minlength=size)
    spoof = np.bincount(places[trials.bona_fide.size :], minlength=size)
    # Neighbours of one class alone have the same share of it, 0 or 1: PAV keeps or pools them together.
    kind = np.where(spoof == 0, 1, np.where(bona_fide == 0, -1, 0))
    begins = np.flatnonzero(np.concatenate(([True], (kind[1:] != kind[:-1]) | (kind[1:] == 0))))
    return np.add.reduceat(bona_fide, begins).astype(float), np.add.reduceat(spoof, begins).astype(float)


def _pooled(bona_fide: Numbers, spoof: Numbers) -> tuple[Numbers, Numbers]:
    """Pool neighbours until the share of bona fide in a group rises from each group to the next."""
    groups: list[tuple[float, float]] = []
    for entry in zip(bona_fide.tolist(), spoof.tolist(), strict=True):
        b, s = entry
        # The share of the group before is not lower: b0 / (b0 + s0) >= b / (b + s), without dividing.
        while groups and groups[-1][0] * s >= b * groups[-1][1]:
            b0, s0 = groups.pop()
            b, s = b + b0, s + s0
        groups.append((b, s))
    pooled = np.array(groups)
    return pooled[:, 0], pooled[:, 1]
