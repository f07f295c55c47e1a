"""training_log.csv: one row per epoch, written whole each time."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from training.checkpoints.history import History
from training.checkpoints.rows import EpochMetrics
from training.reports.story import Moment, Story
from training.settings.tasks import Figures
from utils.atomic_files import write_text_atomically

TIME_COLUMNS = ("step_ms", "blocked_seconds")


class CsvTable:
    """The training log of a run folder."""

    moments = frozenset({Moment.BEGUN, Moment.EPOCH_COMPLETED})

    def __init__(self, path: Path) -> None:
        self.place = path
        self._rows: list[str] = []
        self._last: EpochMetrics | None = None

    def tell(self, story: Story) -> None:
        """Write the table, whole or not at all; raises OSError. What an epoch's row says is made once."""
        history, number = story.history, len(self._rows)
        if number > len(history.epochs) or (number and history.epochs[number - 1] is not self._last):
            self._rows = []
        self._rows += csv_rows(history, len(self._rows))
        self._last = history.last
        write_text_atomically(self.place, "".join([_head(history.figures), *self._rows]))

    def close(self) -> None:
        """Nothing is open."""


def csv_columns(figures: Figures) -> tuple[str, ...]:
    """Return the head of the table. Scripts of users name columns, or count them: new ones come at the end."""
    names = (figure.name for figure in figures.all)
    return ("epoch", "timestamp", "seconds", "step", *names, "learning_rate", *TIME_COLUMNS)


def _head(figures: Figures) -> str:
    return _line(csv_columns(figures))


def csv_rows(history: History, first: int = 0) -> list[str]:
    """Return the lines of the epochs from place `first` on, counted from 0."""
    rows = []
    for row, times in zip(history.epochs[first:], history.times[first:], strict=True):
        timestamp = datetime.fromtimestamp(times.finished_at, UTC).isoformat(timespec="seconds")
        measured = {name: _rounded(getattr(times, name)) for name in TIME_COLUMNS}
        cells = {**row.as_dict(), "timestamp": timestamp, "seconds": f"{times.seconds:.1f}", **measured}
        rows.append(_line([cells[name] for name in csv_columns(history.figures)]))
    return rows


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _rounded(value: float | None) -> str:
    """Return a time as text; empty where an earlier version did not measure it."""
    return "" if value is None else f"{value:.3f}"
