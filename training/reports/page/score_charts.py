"""The DET curve and the histogram of a validation's scores as inline SVG, without matplotlib, which training spares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from training.checkpoints.decision import Decision
from training.reports.page.axes import Axis, rate_axis, value_axis
from training.reports.page.curves import Chart
from training.reports.page.svg import Frame, dot, line
from training.tasks.fitted_decision import decision_from
from training.tasks.task import Scores
from utils.scores.error_curve import ErrorCurve, Numbers, ScoredTrials, error_curve
from utils.scores.metrics import EqualErrorRate, equal_error_rate_of
from utils.scores.shapes import TICKS_PERCENT, BinnedScores, binned_scores, det_limits

_SPOOF, _BONA_FIDE = "spoof", "bona-fide"
_DET_SIZE = 400
_POINTS_ON_A_CURVE = 400


@dataclass(frozen=True)
class ScorePictures:
    """Both charts, and what is said beside them; `decision` is how these scores say that verdicts are made."""

    det: Chart
    histogram: Chart
    equal_errors: EqualErrorRate
    decision: Decision
    num_bona_fide: int
    num_spoof: int


def score_pictures(validation: Scores) -> ScorePictures:
    """Return the pictures of a validation's scores; raises UserError where a class is missing."""
    scored, truth = validation.scores.numpy(), validation.is_bona_fide.numpy()
    trials = ScoredTrials.of(scored, truth)
    decision = decision_from(validation.step, scored, truth)
    curve = error_curve(trials)
    equal_errors = equal_error_rate_of(curve)
    return ScorePictures(
        det_chart(curve, equal_errors),
        histogram_chart(trials, decision),
        equal_errors,
        decision,
        trials.bona_fide.size,
        trials.spoof.size,
    )


def det_chart(curve: ErrorCurve, equal_errors: EqualErrorRate) -> Chart:
    """Return misses against false alarms over all thresholds, on axes where normal scores make a straight line."""
    eer = equal_errors.eer_percent / 100
    low, high = det_limits(eer)
    axis = rate_axis(low, high, TICKS_PERCENT)
    frame = Frame(axis, axis, "spoof accepted, %", height=_DET_SIZE - 20, y_name="bona fide missed, %")
    corner = (frame.across(low), frame.up(low)), (frame.across(high), frame.up(high))
    places = list(_visible(curve, frame, low, high))
    content = [line(corner, "equal")]
    if len(places) > 1:
        content.append(line(places, "line bona-fide"))
    else:
        content.append(
            Markup('<text class="note" x="{:g}" y="{:g}">The curve lies outside these axes.</text>').format(
                (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2
            )
        )
    inside = low <= eer <= high
    title = f"EER {equal_errors.eer_percent:.3f} %" + ("" if inside else ", beyond the edge")
    content.append(dot(frame.across(eer), frame.up(eer), "best", title, 5.5))
    return Chart("DET curve", frame.drawn(f"DET curve of the last validation, {title}", content))


def _visible(curve: ErrorCurve, frame: Frame, low: float, high: float) -> Iterator[tuple[float, float]]:
    """Yield places on the picture, the next one only where it differs: of 100,000 thresholds a few hundred."""
    misses, false_alarms = _thinned(curve.miss_rate, curve.false_alarm_rate, low, high)
    before = None
    for miss, false_alarm in zip(misses, false_alarms, strict=True):
        place = frame.across(float(false_alarm)), frame.up(float(miss))
        if place != before:
            yield place
        before = place


def _thinned(misses: Numbers, false_alarms: Numbers, low: float, high: float) -> tuple[Numbers, Numbers]:
    """Return the part of a curve that the axes show, up to their edges, of points in one place only the first."""
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


def histogram_chart(trials: ScoredTrials, decision: Decision) -> Chart:
    """Return the share of each class in each bin of scores, on a logarithmic scale: errors are in the tails.

    A line marks the score above which the verdict is bona fide; there is none where there is no verdict.
    """
    binned = binned_scores(trials)
    low, high = min(1.0, binned.smallest_share) / 2, binned.largest_share * 2
    y = value_axis([low, high])
    y = Axis(low, high, tuple(tick for tick in _powers(low, high)), "log") if low > 0 else y
    x = _score_axis(binned)
    frame = Frame(x, y, "score (log-odds), higher is bona fide", height=_DET_SIZE - 20, y_name="share of the class, %")
    content = []
    for shares, css_class in ((binned.spoof, _SPOOF), (binned.bona_fide, _BONA_FIDE)):
        content.append(_stairs(shares, binned.edges, frame, css_class))
    spoken = f"Histogram of {trials.bona_fide.size:,} bona fide and {trials.spoof.size:,} spoof scores"
    legend = [("spoof", _SPOOF), ("bona fide", _BONA_FIDE)]
    rule = decision.rule()
    if rule and x.low <= rule.threshold <= x.high:
        content.append(
            Markup('<g class="threshold"><title>bona fide above {:.3f}</title><path d="M{:g} {:g}V{:g}"/></g>').format(
                rule.threshold, frame.across(rule.threshold), frame.top, frame.bottom
            )
        )
        spoken += f", the verdict is bona fide above {rule.threshold:.3f}"
        legend.append(("threshold of the verdict", "threshold"))
    return Chart("Histogram of scores, logarithmic", frame.drawn(spoken, content), tuple(legend))


def _powers(low: float, high: float) -> Iterator[tuple[float, str]]:
    first, last = int(np.ceil(np.log10(low))), int(np.floor(np.log10(high)))
    for power in range(first, last + 1):
        yield 10.0**power, f"{10.0**power:g}"


def _score_axis(binned: BinnedScores) -> Axis:
    """Return the axis of scores, its ends those of the bins: rounding them up would leave room at both sides."""
    low, high = float(binned.edges[0]), float(binned.edges[-1])
    ticks = tuple(tick for tick in value_axis([low, high]).ticks if low <= tick[0] <= high)
    return Axis(low, high, ticks)


def _stairs(shares: Numbers, edges: Sequence[float] | Numbers, frame: Frame, css_class: str) -> Markup:
    steps = [f"M{frame.across(float(edges[0])):g} {frame.bottom:g}"]
    for share, right in zip(shares, edges[1:], strict=True):
        height = frame.up(float(share)) if share > 0 else frame.bottom
        steps.append(f"V{height:g}H{frame.across(float(right)):g}")
    steps.append(f"V{frame.bottom:g}")
    return Markup('<path class="stairs {}" d="{}"/>').format(css_class, "".join(steps))
