"""How the page writes values: times, durations, settings, figures; and the sentences that say where a run stands."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from training.reports.story import Story
from training.settings.tasks import Figure

_MISSING = "-"


def time_text(seconds_since_1970: float) -> str:
    """Return a moment to the minute.

    >>> time_text(1_790_000_000.0)
    '2026-09-21 14:13 UTC'
    """
    return datetime.fromtimestamp(seconds_since_1970, UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units.

    >>> duration_text(0.42), duration_text(59.6), duration_text(3_725), duration_text(200_000)
    ('0.4 s', '1 min 0 s', '1 h 2 min', '2 d 7 h')
    """
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"


def figure(value: float | None, decimals: int = 4) -> str:
    """Return a figure for a table; one that is missing or not finite is said to be.

    >>> figure(0.123456), figure(None), figure(float("nan"))
    ('0.1235', '-', 'nan')
    """
    if value is None:
        return _MISSING
    return f"{value:.{decimals}f}" if math.isfinite(value) else str(value)


def with_unit(figure_of: Figure, value: float | None) -> str:
    """Return a figure of a task with its unit; one that is missing is a dash.

    >>> from training.settings.tasks import DETECTION
    >>> with_unit(DETECTION.figures.first, 12.3456), with_unit(DETECTION.figures.first, None)
    ('12.35 %', '-')
    """
    unit = f" {figure_of.unit}" if figure_of.unit and value is not None else ""
    return figure(value, figure_of.decimals) + unit


def heading(figure_of: Figure) -> str:
    """Return the head of a column of figures.

    >>> from training.settings.tasks import DETECTION
    >>> [heading(one) for one in DETECTION.figures.by_measure]
    ['Train loss', 'Val loss', 'Train EER, %', 'Val EER, %', 'Val acc, %']
    """
    return f"{figure_of.part.capitalize()} {figure_of.short}{f', {figure_of.unit}' if figure_of.unit else ''}"


def value_text(value: Any) -> str:
    """Return a setting's value as it is typed; one that is not set is a dash.

    >>> value_text(1e-06), value_text(True), value_text((0.1, 0.9)), value_text(None), value_text("")
    ('1e-06', 'yes', '0.1,0.9', '-', '-')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or _MISSING
    return _MISSING if value is None or value == "" else str(value)


def state_text(story: Story) -> tuple[str, str]:
    """Return one word for where the run stands, which also names a colour, and a sentence that says it."""
    target = story.options.num_epochs
    if story.is_finished:
        return "finished", f"All {target} epochs are completed." if target > 1 else "The one epoch is completed."
    if story.is_stalled:
        return "finished", f"Ended after epoch {story.history.epoch} of {target}: no better epoch came (--patience)."
    where = f"after epoch {story.history.epoch} of {target}"
    if story.history.under_way.batches_done:
        done = f"{story.history.under_way.batches_done:,} of {story.history.under_way.batches_per_epoch:,} batches"
        where = f"in epoch {story.history.epoch + 1} of {target}, after {done}"
    elif not story.history.epoch:
        where = "before its first step"
    if story.interrupted:
        return "stopped", f"Stopped {where}: {story.interrupted}."
    if not story.history.epochs:
        return "training", f"Training, epoch 1 of {target} is not completed yet."
    return "training", f"Training, {story.history.epoch} of {target} epochs completed."


def freshness_text(story: Story, written_at: float) -> str:
    """Say how old a page of a run in training may be; "" where nothing follows it."""
    if state_text(story)[0] != "training":
        return ""
    times = story.history.times[-3:]
    if not times:
        return "The page is written again after each epoch."
    seconds = sum(finished.seconds for finished in times) / len(times)
    return (
        f"The page is written again after each epoch, next about {time_text(written_at + seconds)[11:]} "
        f"(an epoch takes {duration_text(seconds)}). One that is much older belongs to a run that is not training any "
        "more: the same command with --auto_resume goes on."
    )
