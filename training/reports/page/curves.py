"""Curves over the epochs as inline SVG, with a mark at every stop and resume and at the best epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from training.checkpoints.rows import EpochMetrics, StepMetrics
from training.reports.page.axes import epoch_axis, value_axis
from training.reports.page.svg import Frame, dot, line
from training.reports.page.thinning import Seen
from training.reports.story import Story
from training.settings.tasks import Figure

Points = Sequence[tuple[float, float]]
"""Pairs of epochs trained, maybe a fraction, and a value."""

_MOST_DOTS = 60
_LINE_BUCKETS = 128
_DOT_BUCKETS = 48
_LABEL_WIDTH = 15.0
_MOST_MARKS, _MARKS_APART = 100, 3.0


@dataclass(frozen=True)
class Curve:
    """One line: `css_class` gives its colour; `between` are values within epochs, drawn as dots alone."""

    name: str
    css_class: str
    points: Points
    between: Points = ()


@dataclass(frozen=True)
class Mark:
    """A place on the axis of epochs at which something happened: `label` is short, `title` says what."""

    at: float
    label: str
    title: str


@dataclass(frozen=True)
class Chart:
    """One picture of curves and its caption; `legend` are pairs of name and colour class, none for a single curve."""

    title: str
    svg: Markup
    legend: tuple[tuple[str, str], ...] = ()


def stop_marks(story: Story) -> list[Mark]:
    """Return where the run was stopped and went on, numbered by session, and where it stands if it is stopped now."""
    history = story.history
    marks = [
        Mark(
            history.epochs_at(session.step),
            str(number),
            f"stopped and resumed: session {number} goes on from step {session.step:,}",
        )
        for number, session in enumerate(history.sessions, start=1)
        if session.step or number > 1
    ]
    if story.interrupted:
        marks.append(Mark(history.position, "■", f"stopped at step {history.step:,}: {story.interrupted}"))
    return marks


def charts_of(story: Story, seen: Seen) -> list[Chart]:
    """Return the charts of a run: its figures, learning rate, seconds; none without a figure.

    Long curves are thinned, see `Thinned`; the best epoch is always one of their points.
    """
    history = story.history
    if not history.epochs and not history.validations:
        return []
    marks, last, best = stop_marks(story), last_whole_epoch(history.position), history.best

    def epochs_for(name: str, value: Callable[[EpochMetrics], float]) -> Points:
        rows = seen.thinned(name, history.epochs, value, _LINE_BUCKETS)
        if best and not any(row is best for row in rows):
            rows = sorted([*rows, best], key=lambda row: row.epoch)
        return [(float(row.epoch), value(row)) for row in rows]

    def curve_of(figure: Figure) -> Curve:
        def value(row: EpochMetrics | StepMetrics) -> float:
            return row[figure.name]

        points = epochs_for(figure.name, value)
        if figure.part == "train":
            return Curve("training", "train", points)
        rows = seen.thinned(f"{figure.name} within epochs", history.validations, value, _DOT_BUCKETS)
        return Curve("validation", "val", points, [(history.epochs_at(row.step), value(row)) for row in rows])

    def chart_of(figures: Sequence[Figure]) -> Chart:
        one, *_ = [figure for figure in figures if figure.part == "val"] or figures
        star = (float(best.epoch), best[one.name]) if best and one.part == "val" else None
        title = f"{one.chart}{f', {one.unit}' if one.unit else ''}"
        curves = [curve_of(figure) for figure in figures]
        return line_chart(title, curves, marks, last, best=star, floor=one.floor, ceiling=one.ceiling)

    rates = Curve("learning rate", "other", epochs_for("learning rate", lambda row: row.learning_rate))
    times = seen.thinned("seconds", history.times, lambda finished: finished.seconds, _LINE_BUCKETS)
    seconds = Curve("seconds", "other", [(float(finished.epoch), finished.seconds) for finished in times])
    return [
        *(chart_of(figures) for figures in history.figures.charts),
        line_chart("Learning rate", [rates], marks, last),
        line_chart("Seconds per epoch", [seconds], marks, last, include=0.0, floor=0.0),
    ]


def thinning_text(seen: Seen) -> str:
    """Say what the charts leave out where they do, "" elsewhere; `seen` is what they were made with."""
    if seen.widest == 1:
        return ""
    return (
        f"Long curves are thinned: of up to {seen.widest:,} points in a row they show the first, the last, the lowest "
        "and the highest. The best epoch is always among them."
    )


def last_whole_epoch(position: float) -> int:
    """Return the last tick of an axis that reaches to `position` epochs: a whole number of at least 1.

    >>> last_whole_epoch(0.0), last_whole_epoch(2.5)
    (1, 3)
    """
    return max(1, math.ceil(position))


def line_chart(
    title: str,
    curves: Sequence[Curve],
    marks: Sequence[Mark],
    last_epoch: int,
    *,
    best: tuple[float, float] | None = None,
    floor: float | None = None,
    ceiling: float | None = None,
    include: float | None = None,
) -> Chart:
    """Return one chart; values that are not finite leave a gap. `best` is the point of the best epoch.

    `floor` and `ceiling` are what the measure cannot go below and above, `include` a value that the axis must have.
    """
    values = [value for curve in curves for _, value in (*curve.points, *curve.between)]
    values += [] if include is None else [include]
    y = value_axis(values, floor=floor, ceiling=ceiling)
    frame = Frame(epoch_axis(last_epoch), y, "epoch")
    content = [*_drawn_marks(marks, frame)]
    for curve in curves:
        content += _drawn_curve(curve, frame)
    if best and math.isfinite(best[1]):
        place = frame.across(best[0]), frame.up(best[1])
        content.append(dot(*place, "best", f"best epoch {best[0]:g}: {best[1]:.6g}", 5.5))
    on_log = ", logarithmic" if y.scale == "log" else ""
    spoken = f"{title}{on_log}: {'; '.join(_in_words(curve) for curve in curves)}"
    legend = [(curve.name, curve.css_class) for curve in curves] if len(curves) > 1 else []
    return Chart(title + on_log, frame.drawn(spoken, content), tuple(legend))


def _drawn_curve(curve: Curve, frame: Frame) -> Iterator[Markup]:
    for is_finite, part in groupby(curve.points, key=lambda point: math.isfinite(point[1])):
        if is_finite:
            yield line([(frame.across(x), frame.up(value)) for x, value in part], f"line {curve.css_class}")
    shown = [*curve.points] if len(curve.points) <= _MOST_DOTS else [curve.points[-1]]
    for points, css_class, radius in ((shown, "dot", 2.6), (curve.between, "dot within", 2.2)):
        for x, value in points:
            if math.isfinite(value):
                title = f"{curve.name}, epoch {x:.4g}: {value:.6g}"
                yield dot(frame.across(x), frame.up(value), f"{css_class} {curve.css_class}", title, radius)


def _drawn_marks(marks: Sequence[Mark], frame: Frame) -> Iterator[Markup]:
    """Yield a dashed line for each, of very many those apart; a number where it does not run into the one before."""
    labelled_to = drawn_to = -_LABEL_WIDTH
    apart = _MARKS_APART if len(marks) > _MOST_MARKS else 0.0
    for mark in marks:
        x = frame.across(mark.at)
        if x - drawn_to < apart:
            continue
        drawn_to = x
        label = Markup("")
        if x - labelled_to >= _LABEL_WIDTH:
            label = Markup('<text class="mark" x="{:g}" y="{:g}">{}</text>').format(x, frame.top - 6, mark.label)
            labelled_to = x
        yield Markup('<g class="stop" data-at="{:.4f}"><title>{}</title><path d="M{:g} {:g}V{:g}"/>{}</g>').format(
            mark.at, mark.title, x, frame.top - 2, frame.bottom, label
        )


def _in_words(curve: Curve) -> str:
    finite = [value for _, value in curve.points if math.isfinite(value)]
    if not finite:
        return f"{curve.name}, nothing yet"
    return f"{curve.name} from {finite[0]:.4g} to {finite[-1]:.4g}, lowest {min(finite):.4g}, highest {max(finite):.4g}"
