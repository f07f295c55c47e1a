"""training_log.csv and TensorBoard, always rebuilt from the state's history, so that no log can disagree with it.

A disk that refuses costs a warning and no row: what could not be written is written at the next epoch, or at the end.
"""

from __future__ import annotations

import csv
import io
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from training.checkpoints.record import EpochMetrics
from training.runs.directory import RunDirectory
from training.state import EpochTime, TrainState
from utils.atomic_files import make_folder, write_text_atomically
from utils.console import say

CSV_COLUMNS = ("epoch", "timestamp", "seconds", *(f.name for f in fields(EpochMetrics) if f.name != "epoch"))
_SCALARS = {
    "train/loss": "train_loss",
    "train/eer": "train_eer",
    "val/loss": "val_loss",
    "val/accuracy": "val_acc",
    "val/eer": "val_eer",
    "train/learning_rate": "learning_rate",
}
_Rows = Sequence[tuple[EpochMetrics, EpochTime]]


class RunLogs:
    """The logs of one run. At the start what earlier processes wrote is replaced by the history so far.

    So each epoch appears once however often the run stopped, and what came after the checkpoint is gone.
    """

    def __init__(self, run: RunDirectory, history: Sequence[EpochMetrics], times: Sequence[EpochTime]) -> None:
        self._table = run.training_log
        self._board = _Board(run.logs_folder)
        self._lacking: dict[Path, Callable[[], None]] = {}
        rows = list(zip(history, times, strict=True))
        self._board.write(rows)
        _write_csv(self._table, rows)

    def epoch_completed(self, state: TrainState) -> None:
        """Add the epoch that the state has just completed, and what could not be written before."""
        rows = list(zip(state.history, state.times, strict=True))
        self._try(self._board.folder, lambda: self._board.write(rows))
        self._try(self._table, lambda: _write_csv(self._table, rows))

    def close(self) -> None:
        """Try once more what could not be written, and finish the event file."""
        for path, write in list(self._lacking.items()):
            self._try(path, write)
        self._board.close()

    def _try(self, path: Path, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self._lacking[path] = write
            say(
                f"[WARNING] {path} could not be written: {error.strerror or error}. "
                "The epochs it lacks are added as soon as the disk takes them."
            )
        else:
            self._lacking.pop(path, None)


class _Board:
    """The TensorBoard event file of this process, written in this thread: errors show where they happen.

    Rows are appended while all goes well. After an error, or where the file is gone, a new file gets all rows.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: BinaryIO | None = None
        self._path = folder
        self._num_written = 0

    def write(self, rows: _Rows) -> None:
        """Write the rows that the file lacks; raises OSError, after which the next call writes all of them anew."""
        try:
            if self._file is None or not self._path.exists():
                self._begin()
            assert self._file is not None
            for row, finished in rows[self._num_written :]:
                self._file.write(_scalars(row, finished.finished_at))
            self._file.flush()
            self._num_written = len(rows)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; what the disk refuses now was announced by the write that failed."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = None

    def _begin(self) -> None:
        self.close()
        make_folder(self.folder)
        for earlier in self.folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        # TensorBoard's own form of the name; the nanoseconds tell apart two files begun in one second.
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{now % 10**9}"
        self._path, self._num_written = self.folder / name, 0
        self._file = self._path.open("wb")
        self._file.write(_version())


def _version() -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415  (0.2 s, and only training needs it)

    return _framed(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())


def _scalars(row: EpochMetrics, finished_at: float) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415

    values = [Summary.Value(tag=tag, simple_value=getattr(row, name)) for tag, name in _SCALARS.items()]
    return _framed(Event(wall_time=finished_at, step=row.epoch, summary=Summary(value=values)).SerializeToString())


def _framed(event: bytes) -> bytes:
    """Return an event as an entry of the file (tensorflow/core/lib/io/record_writer.h)."""
    from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415

    entry = io.BytesIO()
    RecordWriter(entry).write(event)
    return entry.getvalue()


def _write_csv(path: Path, rows: _Rows) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row, finished in rows:
        timestamp = datetime.fromtimestamp(finished.finished_at, UTC).isoformat(timespec="seconds")
        writer.writerow({**asdict(row), "timestamp": timestamp, "seconds": f"{finished.seconds:.1f}"})
    write_text_atomically(path, text.getvalue())
