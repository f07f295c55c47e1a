"""Paints the DET curve and the histogram of a validation's scores as inline SVG; what they show is in `shapes`."""

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
from utils.scores.error_curve import Numbers, ScoredTrials, error_curve
from utils.scores.metrics import EqualErrorRate, equal_error_rate_of
from utils.scores.shapes import (
    FALSE_ALARMS_TEXT,
    MISSES_TEXT,
    OUTSIDE_TEXT,
    SCORE_TEXT,
    SHARE_TEXT,
    BinnedScores,
    DetShape,
    binned_scores,
    det_shape,
)

_SPOOF, _BONA_FIDE = "spoof", "bona-fide"
_DET_SIZE = 400


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
        det_chart(det_shape(curve, equal_errors.eer_percent)),
        histogram_chart(trials, decision),
        equal_errors,
        decision,
        trials.bona_fide.size,
        trials.spoof.size,
    )


def det_chart(shape: DetShape) -> Chart:
    """Paint misses against false alarms over all thresholds, on axes where normal scores make a straight line."""
    low, high = shape.low, shape.high
    axis = rate_axis(low, high, shape.ticks_percent)
    frame = Frame(axis, axis, FALSE_ALARMS_TEXT, height=_DET_SIZE - 20, y_name=MISSES_TEXT)
    corner = (frame.across(low), frame.up(low)), (frame.across(high), frame.up(high))
    content = [line(corner, "equal")]
    if shape.is_visible:
        rates = zip(shape.false_alarm_rate.tolist(), shape.miss_rate.tolist(), strict=True)
        content.append(line([(frame.across(across), frame.up(up)) for across, up in rates], "line bona-fide"))
    else:
        content.append(
            Markup('<text class="note" x="{:g}" y="{:g}">{}</text>').format(
                (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2, OUTSIDE_TEXT
            )
        )
    equal, *_ = shape.marked
    content.append(dot(frame.across(equal.false_alarm_rate), frame.up(equal.miss_rate), "best", equal.name, 5.5))
    return Chart("DET curve", frame.drawn(f"DET curve of the last validation, {equal.name}", content))


def histogram_chart(trials: ScoredTrials, decision: Decision) -> Chart:
    """Paint the share of each class in each bin of scores.

    A line marks the score above which the verdict is bona fide; there is none where there is no verdict.
    """
    binned = binned_scores(trials)
    low, high = binned.share_limits
    x, y = _score_axis(binned), Axis(low, high, tuple(_powers(low, high)), "log")
    frame = Frame(x, y, SCORE_TEXT, height=_DET_SIZE - 20, y_name=SHARE_TEXT)
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
