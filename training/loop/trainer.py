"""The training loop: epochs of steps, a validation after each, a checkpoint after that; stopped anywhere, it saves.

A resumed run and a fresh one take the same path through here: the state says where it stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from training.checkpoints.history import EpochMetrics, Pace, StepMetrics, is_stalled
from training.checkpoints.record import Kind
from training.data.batches import Batch, TrainingBatches, ValidationBatches
from training.reports.run_logs import RunLogs
from training.saving.background_saving import Saver
from training.saving.commit import Outcome
from training.state.last_validation import LastValidation
from training.state.snapshot import RunFacts, take_snapshot
from training.state.train_state import TrainState, UnfinishedEpoch
from training.tasks.decision import decision_from
from training.tasks.detection import DetectionTask, ValidationResult
from utils.console import say
from utils.errors import UserError
from utils.interruption import StopRequest
from utils.progress import progress
from utils.scores.metrics import accuracy_percent, equal_error_rate


class _DataError(UserError):
    """An utterance that cannot be read; the state is whole, since it shows between two steps."""


def _read(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches, telling what goes wrong in reading them from what goes wrong in using them."""
    try:
        yield from batches
    except UserError as error:
        raise _DataError(str(error)) from error


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield what makes one step each: `size` batches, or what is left of them at the end of the epoch."""
    while group := list(islice(batches, size)):
        yield group


@dataclass
class Trainer:
    """Everything one run needs while it trains.

    `last_saved` is the checkpoint that the state came from or was last written to, None before the first; `after_epoch`
    is called at the end of each epoch. A disk that refuses a checkpoint does not end the run: `not_saved` then says why
    the newest checkpoint is on no disk, and the next save tries again.
    """

    state: TrainState
    task: DetectionTask
    training: TrainingBatches
    validation: ValidationBatches
    saver: Saver[Outcome]
    logs: RunLogs
    facts: RunFacts
    stop: StopRequest
    last_saved: Path | None
    after_epoch: Callable[[TrainState], None]
    not_saved: str = ""
    _began_at: int = 0
    _saved_at: tuple[int, int] | None = None
    _clock: float = field(default_factory=time.monotonic)
    _blocked: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether --num_epochs are completed, or --patience is at an end; an epoch that was begun is completed."""
        state, options = self.state, self.facts.options
        stalled = is_stalled(state.epoch, state.best, options.patience) and not state.unfinished.batches_done
        return state.epoch >= options.num_epochs or stalled

    def train(self) -> None:
        """Train until `is_done` or a stop is asked for; then `last_saved` is the state as it is.

        Raises UserError where training cannot go on; what was trained is saved first, unless it diverged.
        """
        self._clock = time.monotonic()
        self._began_at = self.state.step
        try:
            if self._was_stopped_before_validation():
                self._after_step()
            while not self.is_done and not self.stop.requested:
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
            self._take_in(self.saver.wait())
            raise UserError(
                f"a process that reads audio died, most likely for want of memory ({str(error).splitlines()[0]}): "
                f"pass a lower --num_workers. {self._what_is_saved()}"
            ) from error
        if self.stop.requested:
            self._save_where_it_stands()
        self._take_in(self.saver.wait())

    def _save_where_it_stands(self) -> None:
        """Put the state as it is on disk, unless it is there already, and wait until it is."""
        self._take_in(self.saver.wait())
        if self.state.unfinished.batches_done:
            if self._saved_at != (self.state.step, self.state.epoch) or self.not_saved:
                self._save(Kind.STEP)
        elif self.not_saved:
            self._save(Kind.EPOCH)
        self._take_in(self.saver.wait())

    def _what_is_saved(self) -> str:
        if self.last_saved is None:
            return "Nothing is saved yet"
        return f"{self.not_saved + '. ' if self.not_saved else ''}--auto_resume goes on from {self.last_saved}"

    def _train_epoch(self) -> None:
        state, under_way = self.state, self.state.unfinished
        num_epochs = self.facts.options.num_epochs
        with progress(
            f"epoch {state.epoch + 1}/{num_epochs}",
            under_way.batches_per_epoch,
            under_way.batches_done,
            epochs_after=num_epochs - state.epoch - 1,
            seconds_of_epoch=state.times[-1].seconds if state.times else None,
        ) as bar:
            began = self._unblocked_clock()
            batches = _read(self.training.batches(state.epoch + 1, under_way.batches_done))
            for group in _grouped(batches, self.facts.options.accumulate_steps):
                state.networks["model"].train()
                result = self.task.training_step(state, *group)
                state.step += 1
                state.pace.steps += 1
                state.pace.step_seconds += self._unblocked_clock() - began
                if state.step == self._began_at + 1:  # only now do the optimizers have their moments
                    self.saver.prepare()
                under_way.add(result.loss, result.scores, result.labels, len(group))
                bar.advance(len(result.labels), under_way.mean_loss, under_way.eer_percent, len(group))
                self._report(self.saver.collect())
                if not self.stop.requested:
                    self._after_step()
                if self.stop.requested:
                    return
                began = self._unblocked_clock()

    def _after_step(self) -> None:
        """Validate and save within the epoch, where this step is one at which that was asked for."""
        if self._step_is_due("val_interval"):
            figures = self._validate()
            if figures is None:
                return
            self.state.validations.append(figures)
            self.state.validation_times.append(time.time())
            self.logs.step_validated(self.state)
        asked_for = self.stop.take_save_request()
        if asked_for or self._step_is_due("save_interval"):
            self._save(Kind.STEP)
        if asked_for:
            self._tell_where_it_is_saved()

    def _tell_where_it_is_saved(self) -> None:
        """Answer SIGUSR1 once the save that it asked for has ended; where a disk refused it, that is said already."""
        self._report(self.saver.wait())
        if not self.not_saved:
            say(f"Saved as {self.last_saved}, and going on.")

    def _was_stopped_before_validation(self) -> bool:
        """Whether the last step of an earlier process is one that --val_interval wants validated, and it is not."""
        within = self.state.unfinished.batches_done > 0
        return within and self._step_is_due("val_interval") and self.state.validated is None

    def _step_is_due(self, setting: str) -> bool:
        interval = getattr(self.facts.options, setting)
        return bool(interval) and self.state.step % interval == 0

    def _validate_and_commit(self) -> None:
        figures = self.state.validated or self._validate()
        if figures is None:
            return
        row = self._metrics_of_epoch(figures)
        self.state.epoch = row.epoch
        self.state.history.append(row)
        self.task.epoch_completed(self.state)
        self._read_clock()
        self.state.times.append(self.state.pace.end_epoch(row.epoch, self.state.seconds_in_epoch))
        self.state.seconds_in_epoch, self.state.pace = 0.0, Pace()
        self.state.unfinished = UnfinishedEpoch(self.training.num_batches_per_epoch)
        self._save(Kind.EPOCH)
        if self.stop.take_save_request():
            self._tell_where_it_is_saved()
        self.logs.epoch_completed(self.state)  # after the checkpoint: logs can be rebuilt from it
        say(_epoch_line(row, self.facts.options.num_epochs, self.state))
        self.after_epoch(self.state)
        self.logs.heatmaps_drawn(self.state)

    def _validate(self) -> StepMetrics | None:
        """Score the validation part; None if a stop was asked for before its end."""
        state = self.state
        state.networks["model"].eval()
        results: list[ValidationResult] = []
        label = f"epoch {state.epoch + 1}/{self.facts.options.num_epochs} validation"
        with progress(label, self.validation.num_batches) as bar:
            for batch in _read(self.validation.batches()):
                results.append(self.task.validation_step(state, batch))
                bar.advance(utterances=len(results[-1].labels))
                if self.stop.requested:
                    return None
        state.last_validation = LastValidation(
            step=state.step,
            scores=torch.cat([result.scores for result in results]),
            is_bona_fide=torch.cat([result.labels for result in results]) == 1,
        )
        scores, is_bona_fide = state.last_validation.scores.numpy(), state.last_validation.is_bona_fide.numpy()
        equal_errors = equal_error_rate(scores, is_bona_fide)
        state.decision = decision_from(state.step, equal_errors.threshold, scores, is_bona_fide)
        return StepMetrics(
            step=state.step,
            epoch=state.epoch,
            val_loss=sum(r.loss_sum for r in results) / sum(r.weight_sum for r in results),
            val_acc=accuracy_percent(scores, is_bona_fide),
            val_eer=equal_errors.eer_percent,
        )

    def _metrics_of_epoch(self, validated: StepMetrics) -> EpochMetrics:
        under_way = self.state.unfinished
        train_eer = under_way.eer_percent()
        assert train_eer is not None  # a training part has both classes
        return EpochMetrics(
            epoch=self.state.epoch + 1,
            step=self.state.step,
            train_loss=under_way.mean_loss,
            train_eer=train_eer,
            val_loss=validated.val_loss,
            val_acc=validated.val_acc,
            val_eer=validated.val_eer,
            learning_rate=self.state.learning_rate,
        )

    def _save(self, kind: Kind) -> None:
        """Begin to save the state as it is now, once the save before has ended and what came of it is known."""
        self._report(self.saver.wait())
        lost = self.state.lost_epochs
        if kind is Kind.EPOCH and self.state.epoch in lost:  # a second try
            lost.remove(self.state.epoch)
        self._read_clock()
        self._report(self.saver.begin(*take_snapshot(self.state, self.facts, kind)))
        self._saved_at = (self.state.step, self.state.epoch)

    def _report(self, outcome: Outcome | None) -> None:
        """Take in how a save ended while training goes on, and say what the disk refused."""
        self._take_in(outcome)
        if outcome and outcome.refused:
            say(f"[WARNING] {outcome.refused}. Training goes on, and the next save tries again.")

    def _take_in(self, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        self.not_saved = outcome.refused
        if outcome.path:
            self.last_saved = outcome.path
            self.logs.saved(outcome.record, self.state)
        elif outcome.record.kind is Kind.EPOCH:
            self.state.lost_epochs.append(outcome.record.epoch)
        for warning in outcome.warnings:
            say(f"[WARNING] {warning}.")

    def _read_clock(self) -> None:
        now = time.monotonic()
        self.state.seconds_in_epoch += now - self._clock
        self.state.training_seconds += now - self._clock
        self._clock = now
        blocked = self.saver.blocked.total_seconds
        self.state.pace.blocked_seconds += blocked - self._blocked
        self._blocked = blocked

    def _unblocked_clock(self) -> float:
        """Return a time in seconds, of a clock that stands still while saving holds up training."""
        return time.perf_counter() - self.saver.blocked.total_seconds


def _epoch_line(row: EpochMetrics, num_epochs: int, state: TrainState) -> str:
    best = "  best so far" if state.best == row else ""
    return (
        f"Epoch {row.epoch}/{num_epochs}  train loss {row.train_loss:.4f}  train EER {row.train_eer:.2f}%  "
        f"val loss {row.val_loss:.4f}  val acc {row.val_acc:.2f}%  val EER {row.val_eer:.2f}%  "
        f"{state.times[-1].seconds:.1f} s{best}"
    )
