"""The training loop: epochs of steps, a validation after each, a checkpoint after that; stopped anywhere, it saves.

A resumed run and a fresh one take the same path through here: the state says where it stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training.checkpoints.record import CheckpointRecord, EpochMetrics, Kind
from training.checkpoints.snapshot import RunFacts, take_snapshot
from training.checkpoints.store import CannotSaveError, CheckpointStore
from training.data import Batch, TrainingBatches, ValidationBatches
from training.interruption import StopRequest
from training.logs import RunLogs
from training.progress import progress
from training.state import EpochTime, TrainState, UnfinishedEpoch
from training.task import DetectionTask, ValidationResult
from utils.console import say
from utils.errors import UserError
from utils.metrics import accuracy_percent, equal_error_rate


class _DataError(UserError):
    """An utterance that cannot be read; the state is whole, since it shows between two steps."""


def _read(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches, telling what goes wrong in reading them from what goes wrong in using them."""
    try:
        yield from batches
    except UserError as error:
        raise _DataError(str(error)) from error


@dataclass
class Trainer:
    """Everything one run needs while it trains.

    `last_saved` is the checkpoint that the state came from or was last written to, None before the first; `after_epoch`
    is called at the end of each epoch. A disk that refuses a checkpoint does not end the run: `not_saved` then says why
    the state as it is now is on no disk, and the next save tries again.
    """

    state: TrainState
    task: DetectionTask
    training: TrainingBatches
    validation: ValidationBatches
    store: CheckpointStore
    logs: RunLogs
    facts: RunFacts
    stop: StopRequest
    last_saved: Path | None
    after_epoch: Callable[[TrainState], None]
    not_saved: str = ""
    best_is_stale: bool = False
    _clock: float = field(default_factory=time.monotonic)

    def train(self) -> None:
        """Train until --num_epochs are completed or a stop is asked for; then `last_saved` is the state as it is.

        Raises UserError where training cannot go on; what was trained is saved first, unless it diverged.
        """
        self._clock = time.monotonic()
        try:
            while self.state.epoch < self.facts.options.num_epochs and not self.stop.requested:
                if not self.state.unfinished.is_trained:
                    self._train_epoch()
                if not self.stop.requested:
                    self._validate_and_commit()
        except _DataError as error:
            self._save_where_it_stands()
            raise UserError(f"{error}. {self._what_is_saved()}") from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            # Raised wherever the loop was, also within an optimizer step, so the state cannot be trusted.
            raise UserError(
                f"a process that reads audio died, most likely for want of memory ({str(error).splitlines()[0]}): "
                f"pass a lower --num_workers. {self._what_is_saved()}"
            ) from error
        if self.stop.requested:
            self._save_where_it_stands()

    def _save_where_it_stands(self) -> None:
        self._read_clock()
        if self.state.unfinished.batches_done:
            self._save(Kind.STEP)
        elif self.not_saved:
            self._save(Kind.EPOCH)

    def _what_is_saved(self) -> str:
        if self.last_saved is None:
            return "Nothing is saved yet"
        return f"{self.not_saved + '. ' if self.not_saved else ''}--auto_resume goes on from {self.last_saved}"

    def _train_epoch(self) -> None:
        state, under_way = self.state, self.state.unfinished
        state.networks["model"].train()
        label = f"epoch {state.epoch + 1}/{self.facts.options.num_epochs}"
        with progress(label, under_way.batches_per_epoch, under_way.batches_done) as bar:
            for batch in _read(self.training.batches(state.epoch + 1, under_way.batches_done)):
                result = self.task.training_step(state, batch)
                state.step += 1
                under_way.add(result.loss, result.scores, result.labels)
                bar.advance(utterances=len(result.labels), loss=under_way.mean_loss)
                if self.stop.requested:
                    return

    def _validate_and_commit(self) -> None:
        results = self._validate()
        if results is None:
            return
        row = self._metrics_of_epoch(results)
        self.state.epoch = row.epoch
        self.state.history.append(row)
        self._read_clock()
        self.state.times.append(EpochTime(row.epoch, time.time(), self.state.seconds_in_epoch))
        self.state.seconds_in_epoch = 0.0
        self.state.unfinished = UnfinishedEpoch(self.training.num_batches_per_epoch)
        self._commit()
        say(_epoch_line(row, self.facts.options.num_epochs, self.state))
        self.after_epoch(self.state)

    def _validate(self) -> list[ValidationResult] | None:
        """Score the validation part; None if a stop was asked for before its end."""
        self.state.networks["model"].eval()
        results = []
        label = f"epoch {self.state.epoch + 1}/{self.facts.options.num_epochs} validation"
        with progress(label, self.validation.num_batches) as bar:
            for batch in _read(self.validation.batches()):
                results.append(self.task.validation_step(self.state, batch))
                bar.advance(utterances=len(results[-1].labels))
                if self.stop.requested:
                    return None
        return results

    def _metrics_of_epoch(self, results: list[ValidationResult]) -> EpochMetrics:
        under_way = self.state.unfinished
        train_labels = under_way.all_labels().numpy()
        val_scores = torch.cat([result.scores for result in results]).numpy()
        val_labels = torch.cat([result.labels for result in results]).numpy()
        return EpochMetrics(
            epoch=self.state.epoch + 1,
            step=self.state.step,
            train_loss=under_way.mean_loss,
            train_eer=equal_error_rate(under_way.all_scores().numpy(), train_labels == 1).eer_percent,
            val_loss=sum(r.loss_sum for r in results) / sum(r.weight_sum for r in results),
            val_acc=accuracy_percent(val_scores, val_labels == 1),
            val_eer=equal_error_rate(val_scores, val_labels == 1).eer_percent,
            learning_rate=self.state.learning_rate,
        )

    def _commit(self) -> None:
        """Make the epoch durable: its checkpoint first, then the best files, then the logs, which can be rebuilt."""
        self._save(Kind.EPOCH)
        if self.not_saved and self.state.epoch < self.facts.options.num_epochs:
            say(f"[WARNING] {self.not_saved}. Training goes on, and saves again after the next epoch.")
        self.logs.epoch_completed(self.state)

    def _save(self, kind: Kind) -> None:
        lost = self.state.lost_epochs
        if kind is Kind.EPOCH and self.state.epoch in lost:  # a second try
            lost.remove(self.state.epoch)
        payload, record = take_snapshot(self.state, self.facts, kind)
        try:
            self.last_saved = self.store.save(payload, record)
        except CannotSaveError as error:
            self.not_saved = str(error)
            if kind is Kind.EPOCH:
                lost.append(self.state.epoch)
            return
        self.not_saved = ""
        if kind is Kind.EPOCH:
            self._keep_best(payload, record)

    def _keep_best(self, payload: dict[str, Any], record: CheckpointRecord) -> None:
        """Make the best files those of the best epoch; where the disk refuses, the next epoch tries again."""
        try:
            if record.best == record.last:
                assert self.last_saved is not None
                self.store.mark_best(self.last_saved, payload, record)
            elif self.best_is_stale:
                self.store.restore_best(record, [self.store.run.folder])
            self.best_is_stale = False
        except CannotSaveError as error:
            self.best_is_stale = True
            say(f"[WARNING] {error}; the best files are not those of the best epoch until they can be written.")

    def _read_clock(self) -> None:
        now = time.monotonic()
        self.state.seconds_in_epoch += now - self._clock
        self.state.training_seconds += now - self._clock
        self._clock = now


def _epoch_line(row: EpochMetrics, num_epochs: int, state: TrainState) -> str:
    best = "  best so far" if state.best == row else ""
    return (
        f"Epoch {row.epoch}/{num_epochs}  train loss {row.train_loss:.4f}  train EER {row.train_eer:.2f}%  "
        f"val loss {row.val_loss:.4f}  val acc {row.val_acc:.2f}%  val EER {row.val_eer:.2f}%  "
        f"{state.times[-1].seconds:.1f} s{best}"
    )
