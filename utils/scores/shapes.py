"""What the pictures of scores show, as numbers and words, whatever paints them: a DET curve, a histogram.

The run page paints them as SVG, without matplotlib, which training spares; --plots paints them as PNG with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.scores.error_curve import ErrorCurve, Numbers, ScoredTrials

FALSE_ALARMS_TEXT, MISSES_TEXT = "spoof accepted, %", "bona fide missed, %"
OUTSIDE_TEXT = "The curve lies outside these axes."
SCORE_TEXT, SHARE_TEXT = "score (higher is bona fide)", "share of the class, %"
_TICKS_PERCENT = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 98, 99, 99.9)
_POINTS_ON_A_CURVE = 400
_FEWEST_BINS, _MOST_BINS = 10, 120


@dataclass(frozen=True)
class OperatingPoint:
    """One point of a DET curve, and what it is called; both rates are fractions."""

    name: str
    false_alarm_rate: float
    miss_rate: float

    @classmethod
    def of_eer(cls, eer_percent: float) -> OperatingPoint:
        """Return the point where both rates are the same.

        >>> OperatingPoint.of_eer(25.0)
        OperatingPoint(name='EER 25.000 %', false_alarm_rate=0.25, miss_rate=0.25)
        """
        return cls(f"EER {eer_percent:.3f} %", eer_percent / 100, eer_percent / 100)

    def within(self, low: float, high: float) -> OperatingPoint:
        """Return it, or, where it lies outside the axes, the place on their edge, and a name that says so.

        >>> OperatingPoint("minDCF", 0.7, 0.1).within(0.001, 0.6)
        OperatingPoint(name='minDCF (beyond the edge)', false_alarm_rate=0.6, miss_rate=0.1)
        """
        rates = [min(max(rate, low), high) for rate in (self.false_alarm_rate, self.miss_rate)]
        is_inside = rates == [self.false_alarm_rate, self.miss_rate]
        return OperatingPoint(self.name if is_inside else f"{self.name} (beyond the edge)", *rates)


@dataclass(frozen=True, eq=False)
class DetShape:
    """A DET curve on axes from the rate `low` to `high`, both alike, with ticks at `ticks_percent`.

    `false_alarm_rate` and `miss_rate` `(points,)` are the part of the curve that the axes show, of 100,000 thresholds a
    few hundred; `marked` are operating points, the first one that of the EER.
    """

    low: float
    high: float
    ticks_percent: tuple[float, ...]
    false_alarm_rate: Numbers
    miss_rate: Numbers
    marked: tuple[OperatingPoint, ...]

    @property
    def is_visible(self) -> bool:
        """Whether the axes show anything of the curve; see OUTSIDE_TEXT."""
        return self.miss_rate.size > 1


def det_shape(curve: ErrorCurve, eer_percent: float, others: Sequence[OperatingPoint] = ()) -> DetShape:
    """Return what a DET curve shows: the axes follow its EER, which is marked, and so are `others`."""
    low = 1e-4 if eer_percent < 1 else 1e-3
    high = 0.6 if eer_percent < 30 else 0.999
    ticks = tuple(percent for percent in _TICKS_PERCENT if 100 * low <= percent <= 100 * high)
    misses, false_alarms = _shown(curve, low, high)
    marked = (OperatingPoint.of_eer(eer_percent), *others)
    return DetShape(low, high, ticks, false_alarms, misses, tuple(point.within(low, high) for point in marked))


def _shown(curve: ErrorCurve, low: float, high: float) -> tuple[Numbers, Numbers]:
    """Return misses and false alarms up to the edges of the axes, of points in one place only the first."""
    misses, false_alarms = curve.miss_rate, curve.false_alarm_rate
    where = np.flatnonzero((np.minimum(misses, false_alarms) > low) & (np.maximum(misses, false_alarms) < high))
    if where.size == 0:
        return misses[:0], false_alarms[:0]
    part = slice(max(0, where[0] - 1), where[-1] + 2)
    misses, false_alarms = (np.clip(rates[part], low, high) for rates in (misses, false_alarms))
    # Equal steps of the log-odds are near enough to equal steps on the axes, and numpy has them.
    a_step = np.log(high / low) / _POINTS_ON_A_CURVE
    cells = np.round(np.log((rates := np.stack((misses, false_alarms))) / (1 - rates)) / a_step)
    changes = np.any(np.diff(cells, prepend=np.nan) != 0, axis=0)
    changes[-1] = True
    return misses[changes], false_alarms[changes]


@dataclass(frozen=True, eq=False)
class BinnedScores:
    """The share of each class in each bin, in percent of the class: `(bins,)` each, between `edges` `(bins + 1,)`."""

    edges: Numbers
    bona_fide: Numbers
    spoof: Numbers

    @property
    def share_limits(self) -> tuple[float, float]:
        """The ends of the axis of shares, which is logarithmic: errors are in the tails."""
        shares = np.concatenate((self.bona_fide, self.spoof))
        return min(1.0, float(shares[shares > 0].min())) / 2, float(shares.max()) * 2


def binned_scores(trials: ScoredTrials) -> BinnedScores:
    """Return the histogram of both classes in common bins, the more of them the more scores there are."""
    num_bins = min(max(int(2 * min(trials.bona_fide.size, trials.spoof.size) ** 0.5), _FEWEST_BINS), _MOST_BINS)
    edges = np.histogram_bin_edges(np.concatenate((trials.bona_fide, trials.spoof)), num_bins)

    def shares(scores: Numbers) -> Numbers:
        return np.histogram(scores, edges)[0] / scores.size * 100

    return BinnedScores(edges, shares(trials.bona_fide), shares(trials.spoof))
