"""training_log.csv and TensorBoard, always rebuilt from the state's history, so that no log can disagree with it."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from datetime import UTC, datetime

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


class RunLogs:
    """The logs of one run. At the start what earlier processes wrote is replaced by the history so far.

    So each epoch appears once however often the run stopped, and what came after the checkpoint is gone.
    """

    def __init__(self, run: RunDirectory, state: TrainState) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (1 s, and only training needs it)

        self._run = run
        make_folder(run.logs_folder)
        for earlier in run.logs_folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        self._board = SummaryWriter(str(run.logs_folder))
        for row, time in zip(state.history, state.times, strict=True):
            self._add_to_board(row, time)
        self._board.flush()
        self._write_csv(state)

    def epoch_completed(self, state: TrainState) -> None:
        """Add the epoch that the state has just completed; a disk that refuses costs a warning and not the run."""
        try:
            self._add_to_board(state.history[-1], state.times[-1])
            self._board.flush()
            self._write_csv(state)
        except OSError as error:
            reason = error.strerror or error
            say(f"[WARNING] The logs lack epoch {state.epoch} ({reason}); they are rebuilt from the next checkpoint.")

    def close(self) -> None:
        """Finish the event file."""
        self._board.close()

    def _add_to_board(self, row: EpochMetrics, time: EpochTime) -> None:
        for tag, name in _SCALARS.items():
            self._board.add_scalar(tag, getattr(row, name), row.epoch, walltime=time.finished_at)

    def _write_csv(self, state: TrainState) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row, time in zip(state.history, state.times, strict=True):
            finished = datetime.fromtimestamp(time.finished_at, UTC).isoformat(timespec="seconds")
            writer.writerow({**asdict(row), "timestamp": finished, "seconds": f"{time.seconds:.1f}"})
        write_text_atomically(self._run.training_log, text.getvalue())
