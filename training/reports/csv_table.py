"""training_log.csv: one row per epoch, written whole each time."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path

from training.checkpoints.history import EpochMetrics
from training.reports.curves import EpochPoint
from utils.atomic_files import write_text_atomically

TIME_COLUMNS = ("step_ms", "blocked_seconds")
CSV_COLUMNS = (
    "epoch",
    "timestamp",
    "seconds",
    *(f.name for f in fields(EpochMetrics) if f.name != "epoch"),
    *TIME_COLUMNS,
)
"""Scripts of users name them, or count them: new ones come at the end."""


def write_csv(path: Path, epochs: Sequence[EpochPoint]) -> None:
    """Write the table of these epochs, whole or not at all; raises OSError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for point in epochs:
        times = point.times
        measured = {name: _rounded(getattr(times, name)) for name in TIME_COLUMNS}
        timestamp = datetime.fromtimestamp(times.finished_at, UTC).isoformat(timespec="seconds")
        writer.writerow(
            {**asdict(point.metrics), "timestamp": timestamp, "seconds": f"{times.seconds:.1f}", **measured}
        )
    write_text_atomically(path, text.getvalue())


def _rounded(value: float | None) -> str:
    """Return a time as text; empty where an earlier version did not measure it."""
    return "" if value is None else f"{value:.3f}"
