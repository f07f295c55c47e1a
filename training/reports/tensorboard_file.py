"""The TensorBoard event file of a run: scalars of epochs and of validations within them, and heatmaps as images."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from training.reports.heatmap_images import heatmaps_of_epoch
from training.reports.points import Curves, EpochPoint
from training.reports.story import Moment, Story
from training.runs.directory import RunDirectory
from utils.atomic_files import make_folder


class TensorBoardFile:
    """The event file of this process, written in this thread: errors show where they happen.

    Points are appended while all goes well. After an error, or where the file is gone, a new file gets all of them.
    Epochs have their number as step, validations within an epoch the training step.
    """

    moments = frozenset({Moment.BEGUN, Moment.STEP_VALIDATED, Moment.EPOCH_COMPLETED, Moment.EPOCH_DRAWN})

    def __init__(self, run: RunDirectory) -> None:
        self.place = run.logs_folder
        self._run = run
        self._file: BinaryIO | None = None
        self._path = run.logs_folder
        self._num_epochs = self._num_validations = self._num_drawn = 0

    def tell(self, story: Story) -> None:
        """Write what the file lacks, what is drawn of epochs too.

        Raises OSError, after which the next call writes everything anew.
        """
        curves, drawn = Curves.of(story.history), story.num_drawn
        try:
            if self._file is None or not self._path.exists():
                self._begin()
            assert self._file is not None
            for event in self._missing(curves, drawn):
                self._file.write(event)
            self._file.flush()
        except OSError:
            self._drop()
            raise
        self._num_epochs, self._num_validations = len(curves.epochs), len(curves.validations)
        self._num_drawn = max(self._num_drawn, drawn)

    def close(self) -> None:
        """Close the file; raises OSError where the disk refuses only now what was written, as NFS does."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _drop(self) -> None:
        """Close a file that lacks something, which is told, or of which another one gets all."""
        with suppress(OSError):
            self.close()

    def _missing(self, curves: Curves, drawn: int) -> Iterator[bytes]:
        for epoch in curves.epochs[self._num_epochs :]:
            yield _scalars(epoch.metrics.epoch, epoch.times.finished_at, epoch.scalars)
        for validation in curves.validations[self._num_validations :]:
            yield _scalars(validation.metrics.step, validation.finished_at, validation.scalars)
        yield from self._images(curves.epochs[self._num_drawn : drawn])

    def _images(self, epochs: Iterable[EpochPoint]) -> Iterator[bytes]:
        for epoch in epochs:
            for image in heatmaps_of_epoch(self._run, epoch.metrics.epoch):
                shown = {
                    "height": image.height,
                    "width": image.width,
                    "colorspace": 3,  # RGB
                    "encoded_image_string": image.png,
                }
                yield _event(epoch.metrics.epoch, epoch.times.finished_at, [{"tag": image.tag, "image": shown}])

    def _begin(self) -> None:
        self._drop()
        make_folder(self.place)
        for earlier in self.place.glob("events.out.tfevents.*"):
            earlier.unlink()
        # TensorBoard's own form of the name; the nanoseconds tell apart two files begun in one second.
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{now % 10**9}"
        self._path = self.place / name
        self._num_epochs = self._num_validations = self._num_drawn = 0
        self._file = self._path.open("wb")
        self._file.write(_version())


def _version() -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415  (0.2 s, and only training needs it)

    return _framed(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())


def _scalars(step: int, finished_at: float, scalars: dict[str, float]) -> bytes:
    return _event(step, finished_at, [{"tag": tag, "simple_value": value} for tag, value in scalars.items()])


def _event(step: int, wall_time: float, values: list[dict[str, Any]]) -> bytes:
    """Return an event whose values are given by the names in TensorBoard's summary.proto."""
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415

    summary = Summary(value=[Summary.Value(**value) for value in values])
    return _framed(Event(wall_time=wall_time, step=step, summary=summary).SerializeToString())


def _framed(event: bytes) -> bytes:
    """Return an event as an entry of the file (tensorflow/core/lib/io/record_writer.h)."""
    from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415

    entry = io.BytesIO()
    RecordWriter(entry).write(event)
    return entry.getvalue()
