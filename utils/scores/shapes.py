"""What the pictures of scores show, as numbers, whatever draws them: axes of a DET curve, bins of a histogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.scores.error_curve import Numbers, ScoredTrials

TICKS_PERCENT = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 98, 99, 99.9)
_FEWEST_BINS, _MOST_BINS = 10, 120


@dataclass(frozen=True, eq=False)
class BinnedScores:
    """The share of each class in each bin, in percent of the class: `(bins,)` each, between `edges` `(bins + 1,)`."""

    edges: Numbers
    bona_fide: Numbers
    spoof: Numbers

    @property
    def smallest_share(self) -> float:
        """The smallest share that is not 0: where a logarithmic axis may begin."""
        shares = np.concatenate((self.bona_fide, self.spoof))
        return float(shares[shares > 0].min())

    @property
    def largest_share(self) -> float:
        """The largest share."""
        return float(max(self.bona_fide.max(), self.spoof.max()))


def det_limits(eer_fraction: float) -> tuple[float, float]:
    """Return the lowest and the highest error rate that a DET curve is drawn for, the same for both axes."""
    return (1e-4 if eer_fraction < 0.01 else 1e-3), (0.6 if eer_fraction < 0.3 else 0.999)


def binned_scores(trials: ScoredTrials) -> BinnedScores:
    """Return the histogram of both classes in common bins, the more of them the more scores there are."""
    num_bins = min(max(int(2 * min(trials.bona_fide.size, trials.spoof.size) ** 0.5), _FEWEST_BINS), _MOST_BINS)
    edges = np.histogram_bin_edges(np.concatenate((trials.bona_fide, trials.spoof)), num_bins)

    def shares(scores: Numbers) -> Numbers:
        return np.histogram(scores, edges)[0] / scores.size * 100

    return BinnedScores(edges, shares(trials.bona_fide), shares(trials.spoof))
