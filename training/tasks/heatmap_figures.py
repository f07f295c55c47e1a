"""Draws attention weights: plain arrays in, figures out; knows neither torch nor files.

matplotlib is imported where it is used, and only its object interface: no global state, no window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from utils.terminal_text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Weights = npt.NDArray[np.float64]

CLASS_NAMES = ("spoof", "bonafide")
CLASS_TITLES = ("spoof", "bona fide")
UNLABELLED = "unlabelled"
_LEARNED, _PRIOR, _BAR = "#21918c", "#d95f02", "#3b528b"
# Behind the verdict: whether it is right.
_BOX = {True: "#d9f0d3", False: "#fddbc7", None: "#e0e7f1"}


@dataclass(frozen=True, eq=False)
class AttentionPicture:
    """What one utterance, or the mean of several, got of attention.

    `temporal` (layers, frames), `intra` (groups, group_size) and `inter` (groups,) are as in `AttentionWeights`;
    `layer_importance` (layers,) and `time_importance` (frames,) derive from them. `prior` (frames,) is the temporal
    attention before anything is learned. `seconds` is the length of the waveform.
    """

    temporal: Weights
    intra: Weights
    inter: Weights
    layer_importance: Weights
    time_importance: Weights
    prior: Weights
    seconds: float


@dataclass(frozen=True)
class Prediction:
    """What was decided about one utterance: the truth, None where it is not known, and `log_odds`.

    They are log p(bona fide) - log p(spoof).
    """

    utterance: str
    is_bona_fide: bool | None
    log_odds: float

    @property
    def is_predicted_bona_fide(self) -> bool:
        """Whether bona fide is the more probable class."""
        return self.log_odds > 0

    @property
    def is_right(self) -> bool | None:
        """Whether the prediction is the truth, None where that is not known."""
        return None if self.is_bona_fide is None else self.is_bona_fide == self.is_predicted_bona_fide


def layer_time_figure(picture: AttentionPicture, title: str) -> Figure:
    """Return the heatmap of attention over layers and time, the prior and the mean over layers above it."""
    figure = _new_figure(10, 6.5, title)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
    mean_over_layers = picture.temporal.mean(axis=0)
    _draw_over_time(top, picture, mean_over_layers, "mean over layers")
    _draw_layer_time(bottom, picture)
    return figure


def intra_group_figure(picture: AttentionPicture, title: str) -> Figure:
    """Return the weights of the layers within their groups."""
    figure = _new_figure(1.7 * picture.intra.shape[1] + 3, 0.55 * picture.intra.shape[0] + 2.4, title)
    _draw_intra_group(figure.subplots(), picture)
    return figure


def inter_group_figure(picture: AttentionPicture, title: str) -> Figure:
    """Return the weights of the groups as bars."""
    figure = _new_figure(7, 4, title)
    _draw_inter_group(figure.subplots(), picture)
    return figure


def layer_importance_figure(picture: AttentionPicture, title: str) -> Figure:
    """Return the share of each layer in the decision as bars."""
    figure = _new_figure(9, 4, title)
    _draw_layer_importance(figure.subplots(), picture)
    return figure


def sample_figure(picture: AttentionPicture, verdict: Prediction) -> Figure:
    """Return one utterance's figure: verdict and statistics, time, layers and groups."""
    figure = _new_figure(16, 10, "Where the detector looked in one utterance")
    grid = figure.add_gridspec(3, 12, height_ratios=(1.1, 2.2, 1.8))
    over_time = figure.add_subplot(grid[0, :9])
    _draw_over_time(over_time, picture, picture.time_importance, "time importance")
    _draw_layer_time(figure.add_subplot(grid[1, :9], sharex=over_time), picture)
    _draw_layer_importance(figure.add_subplot(grid[2, :5]), picture)
    _draw_intra_group(figure.add_subplot(grid[2, 5:9]), picture)
    _draw_inter_group(figure.add_subplot(grid[2, 9:]), picture)
    _write_box(figure.add_subplot(grid[0, 9:]), verdict_text(verdict), _BOX[verdict.is_right])
    _write_box(figure.add_subplot(grid[1, 9:]), statistics_text(picture), "#f2f2f2")
    return figure


def verdict_text(verdict: Prediction) -> str:
    """Return what the prediction box says."""
    probability = 1 / (1 + math.exp(-min(max(verdict.log_odds, -700), 700)))
    truth = "not known" if verdict.is_bona_fide is None else CLASS_TITLES[verdict.is_bona_fide]
    judged = {True: " (ok)", False: " (wrong)", None: ""}[verdict.is_right]
    return (
        f"{printable(verdict.utterance)}\n"
        f"truth      {truth}\n"
        f"predicted  {CLASS_TITLES[verdict.is_predicted_bona_fide]}{judged}\n"
        f"log-odds   {verdict.log_odds:+.3f}\n"
        f"p(bona fide) {probability:.4f}"
    )


def statistics_text(picture: AttentionPicture) -> str:
    """Return entropies in nats and the number of places that attention amounts to, exp(entropy), of all there are."""
    rows = [
        ("time importance", picture.time_importance),
        ("  its prior alone", picture.prior),
        ("layer importance", picture.layer_importance),
        ("groups", picture.inter),
    ]
    lines = ["entropy (nats) and", "effective places, exp(entropy)", ""]
    for name, weights in rows:
        nats = entropy_nats(weights)
        lines += [name, f"  {nats:.3f}   {math.exp(nats):.1f} of {weights.size}"]
    strongest = int(picture.layer_importance.argmax())
    peak_seconds = (int(picture.time_importance.argmax()) + 0.5) * picture.seconds / picture.time_importance.size
    lines += ["", f"strongest layer {strongest + 1}", f"peak at {peak_seconds:.2f} s"]
    return "\n".join(lines)


def entropy_nats(weights: Weights) -> float:
    """Return the entropy of weights that sum to 1: 0 if one has it all, log(n) if n share it evenly.

    >>> entropy_nats(np.array([0.5, 0.5, 0.0])) == math.log(2)
    True
    """
    used = weights[weights > 0]
    return float(-(used * np.log(used)).sum()) + 0.0


def _new_figure(width_inches: float, height_inches: float, title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (only runs that draw pay for it)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize="x-large", parse_math=False)
    return figure


def _draw_over_time(axes: Axes, picture: AttentionPicture, weights: Weights, name: str) -> None:
    """Draw `weights` (frames,) and the prior, both relative to even attention, which is the line at 1."""
    frames = weights.size
    seconds = (np.arange(frames) + 0.5) * picture.seconds / frames
    axes.plot(seconds, weights * frames, color=_LEARNED, label=f"{name}: prior and learned")
    axes.plot(seconds, picture.prior * frames, color=_PRIOR, linestyle="--", label="prior alone, before any learning")
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set(ylabel="x even attention", title=f"Attention over time ({name})", xlim=(0, picture.seconds))
    axes.set_ylim(0, 1.45 * frames * max(weights.max(), picture.prior.max()))
    axes.legend(loc="upper right", fontsize="small", ncols=2)


def _draw_layer_time(axes: Axes, picture: AttentionPicture) -> None:
    layers, frames = picture.temporal.shape
    image = axes.imshow(
        picture.temporal * frames,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap="viridis",
        extent=(0, picture.seconds, 0.5, layers + 0.5),
    )
    axes.set(xlabel="time (s)", ylabel="layer", title="Attention of each layer over time, prior included")
    axes.set_yticks(_numbers(layers, at_most=12))
    axes.figure.colorbar(image, ax=axes, label="x even attention", pad=0.01)


def _draw_intra_group(axes: Axes, picture: AttentionPicture) -> None:
    groups, members = picture.intra.shape
    layers = picture.layer_importance.size
    image = axes.imshow(picture.intra, aspect="auto", cmap="viridis", vmin=0, vmax=picture.intra.max())
    for group in range(groups):
        for member in range(members):
            layer, weight = group * members + member + 1, picture.intra[group, member]
            text = f"L{layer}: {weight:.2f}" if layer <= layers else "no layer"
            colour = "black" if weight > 0.6 * picture.intra.max() else "white"
            axes.text(member, group, text, ha="center", va="center", fontsize="x-small", color=colour)
    axes.set(xlabel="member", ylabel="group", title="Attention within groups of layers")
    axes.set_xticks(range(members), [str(member) for member in _numbers(members)])
    axes.set_yticks(range(groups), [str(group) for group in _numbers(groups)])
    axes.figure.colorbar(image, ax=axes, label="weight in its group", pad=0.02)


def _draw_inter_group(axes: Axes, picture: AttentionPicture) -> None:
    _draw_bars(axes, picture.inter)
    axes.set(xlabel="group", ylabel="weight", title="Attention across groups")


def _draw_layer_importance(axes: Axes, picture: AttentionPicture) -> None:
    _draw_bars(axes, picture.layer_importance)
    axes.set(xlabel="layer", ylabel="share of the decision", title="Layer importance (across x within groups)")


def _draw_bars(axes: Axes, weights: Weights) -> None:
    axes.bar(_numbers(weights.size), weights, color=_BAR)
    axes.axhline(1 / weights.size, color="grey", linewidth=0.8, linestyle=":", label="even")
    axes.set_ylim(0, 1.2 * max(weights.max(), 1 / weights.size))
    axes.set_xticks(_numbers(weights.size, at_most=24))
    axes.tick_params(axis="x", labelsize="small")
    axes.legend(loc="upper right", fontsize="small")


def _write_box(axes: Axes, text: str, colour: str) -> None:
    axes.set_axis_off()
    axes.text(
        0.02,
        0.98,
        text,
        transform=axes.transAxes,
        va="top",
        family="monospace",
        fontsize="medium",
        parse_math=False,
        bbox={"facecolor": colour, "edgecolor": "grey", "boxstyle": "round,pad=0.6"},
    )


def _numbers(count: int, at_most: int = 10**6) -> Sequence[int]:
    """Return 1 to `count`, thinned to at most `at_most` of them."""
    return range(1, count + 1, -(-count // at_most))
