"""training_log.csv: one row per epoch, written whole each time."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

from training.checkpoints.history import History
from training.reports.story import Moment, Story
from training.settings.tasks import Figures
from utils.atomic_files import write_text_atomically

TIME_COLUMNS = ("step_ms", "blocked_seconds")


class CsvTable:
    """The training log of a run folder."""

    moments = frozenset({Moment.BEGUN, Moment.EPOCH_COMPLETED})

    def __init__(self, path: Path) -> None:
        self.place = path

    def tell(self, story: Story) -> None:
        """Write the table, whole or not at all; raises OSError."""
        write_csv(self.place, story.history)

    def close(self) -> None:
        """Nothing is open."""


def csv_columns(figures: Figures) -> tuple[str, ...]:
    """Return the head of the table. Scripts of users name columns, or count them: new ones come at the end."""
    names = (figure.name for figure in figures.all)
    return ("epoch", "timestamp", "seconds", "step", *names, "learning_rate", *TIME_COLUMNS)


def write_csv(path: Path, history: History) -> None:
    """Write the table of these epochs, whole or not at all; raises OSError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, csv_columns(history.figures), lineterminator="\n")
    writer.writeheader()
    for row, times in zip(history.epochs, history.times, strict=True):
        measured = {name: _rounded(getattr(times, name)) for name in TIME_COLUMNS}
        timestamp = datetime.fromtimestamp(times.finished_at, UTC).isoformat(timespec="seconds")
        writer.writerow({**row.as_dict(), "timestamp": timestamp, "seconds": f"{times.seconds:.1f}", **measured})
    write_text_atomically(path, text.getvalue())


def _rounded(value: float | None) -> str:
    """Return a time as text; empty where an earlier version did not measure it."""
    return "" if value is None else f"{value:.3f}"
