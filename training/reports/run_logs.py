"""All logs of a run, always rebuilt from the state's history, so that no log can disagree with it.

A disk that refuses costs a warning and no row: what could not be written is written at the next epoch, or at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.checkpoints.record import CheckpointRecord
from training.reports.csv_table import write_csv
from training.reports.curves import Curves
from training.reports.tensorboard_file import TensorBoardFile
from training.reports.wandb_run import WandbRun
from training.runs.directory import RunDirectory
from training.state.train_state import TrainState
from utils.console import say

if TYPE_CHECKING:
    from training.tasks.audio_examples import AudioExample


class RunLogs:
    """The logs of one run. At the start what earlier processes wrote is replaced by the curves so far.

    So each point appears once however often the run stopped, and what came after the checkpoint is gone. Raises
    OSError where the disk refuses at the start. `wandb` is where they go too, if that was asked for.
    """

    def __init__(self, run: RunDirectory, curves: Curves, wandb: WandbRun | None = None) -> None:
        self._wandb = wandb
        self._table = run.training_log
        self._board = TensorBoardFile(run)
        self._lacking: dict[Path, Callable[[], None]] = {}
        self._board.write(curves, drawn=len(curves.epochs))
        write_csv(self._table, curves.epochs)
        if wandb:
            wandb.start(curves)

    def saved(self, record: CheckpointRecord, state: TrainState) -> None:
        """Take in that a checkpoint of this state, or of an earlier one, is on disk now."""
        if self._wandb:
            self._wandb.write(Curves.of(state).until(record))

    def step_validated(self, state: TrainState) -> None:
        """Add the validation within an epoch that has just ended, and what could not be written before."""
        curves = Curves.of(state)
        self._try(self._board.folder, lambda: self._board.write(curves, drawn=len(curves.epochs)))

    def epoch_completed(self, state: TrainState) -> None:
        """Add the epoch that the state has just completed, and what could not be written before."""
        curves = Curves.of(state)
        self._try(self._board.folder, lambda: self._board.write(curves, drawn=len(curves.epochs) - 1))
        self._try(self._table, lambda: write_csv(self._table, curves.epochs))

    def heatmaps_drawn(self, state: TrainState) -> None:
        """Add the heatmaps of the epoch that the state has just completed, if any were drawn."""
        curves = Curves.of(state)
        self._try(self._board.folder, lambda: self._board.write(curves, drawn=len(curves.epochs)))

    def training_completed(
        self, checkpoints: Callable[[], Sequence[Path]], examples: Callable[[], Sequence[AudioExample]]
    ) -> None:
        """Take in that the last epoch is saved, with what to show of the detector where that was asked for."""
        if self._wandb:
            self._wandb.training_completed(checkpoints, examples)

    def close(self) -> None:
        """Try once more what could not be written, and finish the event file and the W&B run."""
        for path, write in list(self._lacking.items()):
            self._try(path, write)
        self._board.close()
        if self._wandb:
            self._wandb.close()

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
