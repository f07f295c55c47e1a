"""Pictures of a score file: the detection error trade-off (DET) curve and the histogram of scores, as PNG files.

matplotlib is imported where it is used, and only its object interface: no global state, no window.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.score_report import ScoreReport
from utils.atomic_files import atomic_write, remove_stray_temporaries
from utils.errors import UserError
from utils.scores.detection_cost import DECISION_THRESHOLD
from utils.scores.score_metrics import PooledMetrics
from utils.scores.shapes import TICKS_PERCENT, binned_scores, det_limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
_TITLE_COLUMNS = 60  # what fits across the narrower picture
DET_FILE, HISTOGRAM_FILE = "det_curve.png", "score_histogram.png"
_BONA_FIDE, _SPOOF, _MARK = "#21918c", "#d95f02", "#3b528b"


def draw_score_figures(report: ScoreReport, folder: Path) -> list[Path]:
    """Write both pictures into `folder`, which is made where it is missing, and return their paths.

    Raises UserError where the disk refuses.
    """
    figures = {DET_FILE: det_figure(report), HISTOGRAM_FILE: histogram_figure(report)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            remove_stray_temporaries(folder, of=name)
            with atomic_write(folder / name) as file:
                figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    except OSError as error:
        raise UserError(
            f"--plots {folder}: the pictures cannot be written ({error.strerror}): pass another folder"
        ) from error
    return [folder / name for name in figures]


def det_figure(report: ScoreReport) -> Figure:
    """Return misses against false alarms over all thresholds, on axes where normal scores make a straight line."""
    from scipy.special import ndtri  # noqa: PLC0415  (only runs that draw pay for it)

    curve, eer = report.curve, report.pooled.eer.eer_percent / 100
    lowest, highest = det_limits(eer)
    figure = _new_figure(6.4, 6.4, f"DET curve of {_short_name(report.scores.path)}")
    axes = figure.subplots()
    # Rates of exactly 0 and 1 lie at infinity: far outside the axes will do.
    miss_rate, false_alarm_rate = (np.clip(rate, 1e-9, 1 - 1e-9) for rate in (curve.miss_rate, curve.false_alarm_rate))
    axes.plot(ndtri(false_alarm_rate), ndtri(miss_rate), color=_BONA_FIDE, linewidth=1.8)
    limits = (float(ndtri(lowest)), float(ndtri(highest)))
    axes.plot(limits, limits, color="grey", linewidth=0.8, linestyle=":", label="both rates equal")
    _mark_operating_points(axes, report.pooled, lowest, highest)
    ticks = [percent for percent in TICKS_PERCENT if 100 * lowest <= percent <= 100 * highest]
    places, labels = [float(ndtri(percent / 100)) for percent in ticks], [f"{percent:g}" for percent in ticks]
    axes.set_xticks(places, labels)
    axes.set_yticks(places, labels)
    axes.set(xlim=limits, ylim=limits, xlabel="spoof accepted (%)", ylabel="bona fide missed (%)", aspect="equal")
    axes.grid(color="0.9")
    rates = np.stack((miss_rate, false_alarm_rate))
    if not np.any((rates.min(axis=0) > lowest) & (rates.max(axis=0) < highest)):
        axes.text(0.5, 0.5, "The curve lies outside these axes.", transform=axes.transAxes, ha="center", va="bottom")
    figure.legend(loc="outside lower center", ncols=2, columnspacing=1)
    return figure


def _mark_operating_points(axes: Axes, pooled: PooledMetrics, lowest: float, highest: float) -> None:
    """Mark three operating points; one outside the axes is put on their edge, and its label says so."""
    from scipy.special import ndtri  # noqa: PLC0415

    eer, best, actual = pooled.eer.eer_percent / 100, pooled.min_dcf, pooled.actual_dcf
    for marker, colour, x, y, name in (
        ("o", _BONA_FIDE, eer, eer, f"EER {pooled.eer.eer_percent:.3f} %"),
        ("D", _MARK, best.false_alarm_rate, best.miss_rate, f"minDCF {best.cost:.4f}"),
        ("s", _SPOOF, actual.false_alarm_rate, actual.miss_rate, f"actDCF {actual.cost:.4f}"),
    ):
        is_inside = all(lowest <= rate <= highest for rate in (x, y))
        label = name if is_inside else f"{name} (beyond the edge)"
        place = [float(ndtri(min(max(rate, lowest), highest))) for rate in (x, y)]
        axes.plot(*place, marker, color=colour, markersize=8, label=label, clip_on=False, zorder=3)


def histogram_figure(report: ScoreReport) -> Figure:
    """Return the share of each class in each bin of scores, on a logarithmic scale: errors are in the tails."""
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
    axes.set(
        xlabel="score (higher is bona fide)",
        ylabel="share of the class per bin (%)",
        xlim=(binned.edges[0], binned.edges[-1]),
    )
    axes.set_ylim(min(1.0, binned.smallest_share) / 2, binned.largest_share * 2)
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
