"""Paints the DET (detection error trade-off) curve and histogram of a score file as PNG; `shapes` has what they show.

matplotlib is imported where it is used, and only its object interface: no global state, no window.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from training.evaluation.score_report import ScoreReport
from utils.atomic_files import atomic_write
from utils.errors import UserError
from utils.scores.detection_cost import DECISION_THRESHOLD
from utils.scores.shapes import (
    FALSE_ALARMS_TEXT,
    MISSES_TEXT,
    OUTSIDE_TEXT,
    SCORE_TEXT,
    SHARE_TEXT,
    OperatingPoint,
    binned_scores,
    det_shape,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
_TITLE_COLUMNS = 60  # what fits across the narrower picture
DET_FILE, HISTOGRAM_FILE = "det_curve.png", "score_histogram.png"
_BONA_FIDE, _SPOOF, _MARK = "#21918c", "#d95f02", "#3b528b"
_MARKERS = (("o", _BONA_FIDE), ("D", _MARK), ("s", _SPOOF))
"""Of the EER, minDCF and actDCF."""


def draw_score_figures(report: ScoreReport, folder: Path) -> list[Path]:
    """Write both pictures into `folder`, which is made where it is missing, and return their paths.

    Raises UserError where the disk refuses.
    """
    figures = {DET_FILE: det_figure(report), HISTOGRAM_FILE: histogram_figure(report)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            with atomic_write(folder / name) as file:
                figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    except OSError as error:
        raise UserError(
            f"--plots {folder}: the pictures cannot be written ({error.strerror}): pass another folder"
        ) from error
    return [folder / name for name in figures]


def det_figure(report: ScoreReport) -> Figure:
    """Paint misses against false alarms over all thresholds, on axes where normal scores make a straight line."""
    from scipy.special import ndtri  # noqa: PLC0415  (only runs that draw pay for it)

    pooled = report.pooled
    best, actual = pooled.min_dcf, pooled.actual_dcf
    others = (
        OperatingPoint(f"minDCF {best.cost:.4f}", best.false_alarm_rate, best.miss_rate),
        OperatingPoint(f"actDCF {actual.cost:.4f}", actual.false_alarm_rate, actual.miss_rate),
    )
    shape = det_shape(report.curve, pooled.eer.eer_percent, others)
    figure = _new_figure(6.4, 6.4, f"DET curve of {_short_name(report.scores.path)}")
    axes = figure.subplots()
    axes.plot(ndtri(shape.false_alarm_rate), ndtri(shape.miss_rate), color=_BONA_FIDE, linewidth=1.8)
    limits = (float(ndtri(shape.low)), float(ndtri(shape.high)))
    axes.plot(limits, limits, color="grey", linewidth=0.8, linestyle=":", label="both rates equal")
    for (marker, colour), point in zip(_MARKERS, shape.marked, strict=True):
        place = float(ndtri(point.false_alarm_rate)), float(ndtri(point.miss_rate))
        axes.plot(*place, marker, color=colour, markersize=8, label=point.name, clip_on=False, zorder=3)
    places = [float(ndtri(percent / 100)) for percent in shape.ticks_percent]
    labels = [f"{percent:g}" for percent in shape.ticks_percent]
    axes.set_xticks(places, labels)
    axes.set_yticks(places, labels)
    axes.set(xlim=limits, ylim=limits, xlabel=FALSE_ALARMS_TEXT, ylabel=MISSES_TEXT, aspect="equal")
    axes.grid(color="0.9")
    if not shape.is_visible:
        axes.text(0.5, 0.5, OUTSIDE_TEXT, transform=axes.transAxes, ha="center", va="bottom")
    figure.legend(loc="outside lower center", ncols=2, columnspacing=1)
    return figure


def histogram_figure(report: ScoreReport) -> Figure:
    """Paint the share of each class in each bin of scores."""
    trials, pooled = report.trials, report.pooled
    figure = _new_figure(9, 5, f"Scores in {_short_name(report.scores.path)}")
    axes = figure.subplots()
    binned = binned_scores(trials)
    for shares, colour, name in (
        (binned.spoof, _SPOOF, f"spoof ({trials.spoof.size:,})"),
        (binned.bona_fide, _BONA_FIDE, f"bona fide ({trials.bona_fide.size:,})"),
    ):
        axes.stairs(shares, binned.edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(shares, binned.edges, color=colour, linewidth=1.5, label=name)
    axes.axvline(pooled.eer.threshold, color="black", linewidth=1.2, label=f"EER threshold {pooled.eer.threshold:.3f}")
    axes.axvline(
        DECISION_THRESHOLD,
        color="black",
        linewidth=1.2,
        linestyle=":",
        label=f"actDCF threshold {DECISION_THRESHOLD:.3f}",
    )
    rule = report.judge.rule if report.judge else None
    if rule:
        label = f"verdict threshold {rule.threshold:.3f}"
        axes.axvline(rule.threshold, color=_MARK, linewidth=1.6, linestyle="--", label=label)
    axes.set_yscale("log")
    axes.set(xlabel=SCORE_TEXT, ylabel=SHARE_TEXT, xlim=(binned.edges[0], binned.edges[-1]), ylim=binned.share_limits)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    figure.legend(loc="outside lower center", ncols=3 if rule else 4)
    return figure


def _short_name(path: Path) -> str:
    """Return a file's name with its folder's: many score files are called alike."""
    return str(Path(path.parent.name, path.name))


def _new_figure(width_inches: float, height_inches: float, title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, _TITLE_COLUMNS), parse_math=False)
    return figure
