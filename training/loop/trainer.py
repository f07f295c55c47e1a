"""The training loop: epochs of steps, a validation after each, a checkpoint after that; stopped anywhere, it saves.

A resumed run and a fresh one take the same path through here: the state says where it stands.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from training.checkpoints.history import EpochMetrics, History, StepMetrics, is_stalled
from training.checkpoints.record import SAVED_BY_TIME, Kind
from training.data.batches import TrainingBatches, ValidationBatches
from training.data.reading import DataError, read
from training.data.shares import Share
from training.loop.exchange import Exchange
from training.loop.passes import pass_once_more, validate
from training.loop.same_state import require_same_state
from training.loop.step import take_step
from training.loop.taking_over import TakenOver
from training.loop.undoing import StepUndo
from training.planning.announcements import out_of_memory_text
from training.planning.save_cost import COST_KEY
from training.reports.reporting import Reports
from training.reports.story import Moment
from training.saving.background_saving import Saver
from training.saving.commit import Committer, Outcome
from training.saving.save_times import SaveTimes
from training.settings.options import Options
from training.state.snapshot import RunFacts, take_snapshot
from training.state.train_state import TrainState
from training.tasks.task import Task
from utils.console import say
from utils.errors import UserError
from utils.interruption import StopRequest
from utils.memory_shortage import memory_shortage
from utils.peers import PeersStoppedError
from utils.progress import progress
from utils.ranks import Alone, Failure, Ranks, stop_asked
from utils.waiting import StopAskedError


@dataclass
class Trainer:
    """Everything one run needs while it trains.

    `committer` is what the saver hands its saves to, and `times` says when to save by time. `last_saved` is the
    checkpoint that the state came from or was last written to, None before the first; `draw` is called at the end of
    each epoch, and told whether it is the last one. A disk that refuses a checkpoint does not end the run: `not_saved`
    then says why the newest checkpoint is on no disk, and the next save tries again. Of several processes the first
    writes; `take_over` lets another one do so once the first is dead, or raises UserError.
    """

    state: TrainState
    task: Task
    training: TrainingBatches
    validation: ValidationBatches
    saver: Saver[Outcome]
    committer: Committer
    reports: Reports
    facts: RunFacts
    stop: StopRequest
    last_saved: Path | None
    draw: Callable[[bool], None]
    ranks: Ranks = field(default_factory=Alone)
    times: SaveTimes = field(default_factory=SaveTimes)
    take_over: Callable[[], TakenOver] | None = None
    not_saved: str = ""
    _began_at: int = 0
    _saved_at: tuple[int, int] | None = None
    _clock: float = field(default_factory=time.monotonic)
    _blocked: float = 0.0
    _validation_seconds: float = math.inf

    @property
    def is_done(self) -> bool:
        """Whether --num_epochs are completed, or --patience is at an end; an epoch that was begun is completed."""
        history, options = self.state.history, self.facts.options
        stalled = is_stalled(history, options.patience) and not history.under_way.batches_done
        return history.epoch >= options.num_epochs or stalled

    def _is_done_for_all(self) -> bool:
        """Return `is_done`, once all know what only the first knows: which epochs are on no disk."""
        history = self.state.history
        history.lost_epochs[:] = self.ranks.broadcast(lambda: history.lost_epochs)
        return self.is_done

    @property
    def _is_to_stop(self) -> bool:
        return stop_asked(self.ranks, self.stop)

    def train(self) -> None:
        """Train until `is_done` or a stop is asked for; then `last_saved` is the state as it is.

        Raises UserError where training cannot go on; what was trained is saved first, unless it diverged or memory
        ran out in the middle of an update.
        """
        self._clock = time.monotonic()
        self.times.start(self._clock)
        self._began_at = self.state.step
        self._share = Share(self.ranks.index, self.ranks.count, self.facts.options.accumulate_steps)
        self._exchange = Exchange(self.ranks.group, self._share) if self.ranks.count > 1 else None
        self._undo = StepUndo(self.state.networks.values(), self.state.optimizers.values())
        cause: UserError | None = None
        shortage = ""
        try:
            cause = self._train_and_save()
        except PeersStoppedError:
            pass
        except (MemoryError, RuntimeError, OSError) as error:
            shortage = memory_shortage(error)
            if shortage:
                self.ranks.fail(out_of_memory_text(shortage, self.state.history))
            elif not self.ranks.is_failure():
                raise
        if self.ranks.failure:
            self._end_after(self.ranks.failure)
        elif shortage:  # here, where the error no longer holds what the step had allocated
            self._end_for_want_of_memory(shortage)
        elif cause:
            raise UserError(f"{cause}. {self._what_is_saved()}") from cause

    def _train_and_save(self) -> DataError | None:
        """Train and put the state on disk; return what could not be read, if that ended it."""
        cause = None
        try:
            if self._was_stopped_before_validation():
                self._after_step()
            while not self._is_done_for_all() and not self._is_to_stop:
                if not self.state.history.under_way.is_trained:
                    self._train_epoch()
                if not self._is_to_stop:
                    self._validate_and_commit()
        except StopAskedError:  # between two steps, and validation is done again
            _ = self._is_to_stop  # by which signal
        except DataError as error:
            cause = error
        self._save_where_it_stands()
        self.last_saved, self.not_saved, lost = self.ranks.broadcast(
            lambda: (self.last_saved, self.not_saved, self.state.history.lost_epochs)
        )
        self.state.history.lost_epochs[:] = lost
        return cause

    def _end_after(self, failure: Failure) -> None:
        """End what cannot go on because of one process; the lowest that lives saves what was trained, if that is whole.

        Raises UserError, the same in all of them.
        """
        gc.collect()
        is_whole = self._undo.undo()
        self.last_saved, self.not_saved = self.ranks.conclude(lambda: self._saved_after(failure, is_whole))
        raise UserError(f"{failure.text.rstrip('.')}. {self._what_is_saved()}", failure.exit_code)

    def _saved_after(self, failure: Failure, is_whole: bool) -> tuple[Path | None, str]:
        """Save what was trained and return where it is, and why it is on no disk, if it is not.

        Nothing is saved from a GPU that waits for a dead process.
        """
        if not is_whole or (failure.is_lost and self.task.device.type == "cuda"):
            self._take_in(self.saver.wait())
            return self.last_saved, self.not_saved
        try:
            if self.take_over and not self.ranks.is_first:
                taken = self.take_over()
                self.saver, self.last_saved = taken.saver, taken.newest
                self._save_unless_there(taken)
            else:
                self._save_where_it_stands()
        except UserError as error:
            return self.last_saved, str(error)
        return self.last_saved, self.not_saved

    def _save_unless_there(self, taken: TakenOver) -> None:
        """Save the state as the process that takes over from a dead one, which may have saved it itself."""
        history = self.state.history
        if history.step and not taken.has_state:
            self._save(Kind.STEP if history.under_way.batches_done else Kind.EPOCH)
            self._take_in(self.saver.wait())

    def _end_for_want_of_memory(self, shortage: str) -> None:
        """Raise UserError, once what was trained is saved if it is whole and there is memory enough for that."""
        gc.collect()
        torch.cuda.empty_cache()
        try:
            if self._undo.undo():
                self._save_where_it_stands()
        except (MemoryError, RuntimeError, OSError) as error:
            if not memory_shortage(error):
                raise
        self._take_in(self.saver.wait())
        raise UserError(f"{out_of_memory_text(shortage, self.state.history)} {self._what_is_saved()}")

    def _save_where_it_stands(self) -> None:
        """Put the state as it is on disk, unless it is there already, and wait until it is.

        What was refused is tried once more, since no other save comes.
        """
        outcome = self.saver.wait()
        self._take_in(outcome)
        if outcome and outcome.refused:
            say(f"[WARNING] {outcome.refused}. It is tried once more.")
        is_news = self._save_refused_best()
        if not self.ranks.saves:
            return
        if self.state.history.under_way.batches_done:
            if self._saved_at != (self.state.step, self.state.epoch) or self.not_saved or is_news:
                self._save(Kind.STEP)
        elif self.not_saved or is_news:
            self._save(Kind.EPOCH)
        self._take_in(self.saver.wait())
        self.committer.catch_up()

    def _save_refused_best(self) -> bool:
        """Try again to save the best epoch, if that was refused; return whether checkpoints that came later lack that.

        It holds up training: the next save, which must know what came of it, has to wait.
        """
        if not self.ranks.saves:
            return False
        with self.saver.blocked.measured():
            outcome = self.committer.save_refused()
        if outcome is None or outcome.path is None:
            return False
        history = self.state.history
        history.lost_epochs.remove(outcome.record.epoch)
        say(f"{outcome.path} is saved now, on a second try.")
        self._warn(outcome)
        if outcome.path == outcome.furthest:
            self.last_saved = outcome.path
            self.reports.saved(outcome.record)
        is_newest = (outcome.record.step, outcome.record.epoch) == (history.step, history.epoch)
        if is_newest:
            self.not_saved = ""
        return not is_newest

    def _what_is_saved(self) -> str:
        if self.last_saved is None:
            return "Nothing is saved yet"
        return f"{self.not_saved + '. ' if self.not_saved else ''}--auto_resume goes on from {self.last_saved}"

    def _train_epoch(self) -> None:
        state, history, under_way = self.state, self.state.history, self.state.history.under_way
        num_epochs = self.facts.options.num_epochs
        with progress(
            f"epoch {history.epoch + 1}/{num_epochs}",
            under_way.batches_per_epoch,
            under_way.batches_done,
            epochs_after=num_epochs - history.epoch - 1,
            seconds_of_epoch=history.times[-1].seconds if history.times else None,
        ) as bar:
            began = self._unblocked_clock()
            steps = self.training.steps(history.epoch + 1, under_way.batches_done, self._share, self.stop)
            for given in read(steps, self.ranks):
                for network in state.networks.values():
                    network.train()
                with self._undo.step():
                    result = take_step(state, self.task, given, self.ranks, self._exchange)
                history.pace.steps += 1
                history.pace.step_seconds += self._unblocked_clock() - began
                if history.step == self._began_at + 1:  # only now do the optimizers have their moments
                    self.saver.prepare()
                under_way.add(result.loss, result.utterances, given.num_batches)
                for observed in result.observed:
                    state.observed.add(observed)
                bar.advance(result.utterances, under_way.mean_loss, self._running_figure, given.num_batches)
                self._report(self.saver.collect())
                if not self._is_to_stop:
                    self._after_step()
                if self._is_to_stop:
                    return
                began = self._unblocked_clock()

    def _running_figure(self) -> str:
        return self.task.running_figure(self.state.observed.joined)

    def _after_step(self) -> None:
        """Validate and save within the epoch, where this step is one at which that was asked for."""
        history, options = self.state.history, self.facts.options
        if _is_due(history.step, options.val_interval):
            self._save_if_it_is_time(self._validation_seconds)
            figures = self._validate()
            if figures is None:
                return
            history.validations.append(figures)
            history.validation_times.append(time.time())
            self.reports.tell(Moment.STEP_VALIDATED)
        asked_for = self._is_asked_to_save()
        if asked_for or _is_due(history.step, options.save_interval):
            self._save(Kind.STEP)
        else:
            self._save_if_it_is_time()
        if asked_for:
            self._tell_where_it_is_saved()

    def _save_if_it_is_time(self, ahead: float = 0.0) -> None:
        """Save within the epoch if that is due by time; until this is asked again it lasts `ahead`, or a step."""
        is_new = self._saved_at != (self.state.step, self.state.epoch)
        is_due = self.times.is_due(time.monotonic(), self._next_save_in(), ahead) and not self.saver.is_busy
        if self.ranks.any(self.ranks.is_first and is_due and is_new):
            self._save(Kind.STEP, by_time=True)

    def _next_save_in(self) -> float:
        """Return in how many seconds the next save by steps or epochs is expected; infinite where that is not known."""
        history, options = self.state.history, self.facts.options
        if not history.pace.steps:
            return math.inf
        batches = history.under_way.batches_per_epoch - history.under_way.batches_done
        steps = -(-batches // options.accumulate_steps)
        if options.save_interval:
            steps = min(steps, options.save_interval - history.step % options.save_interval)
        return steps * history.pace.step_seconds / history.pace.steps

    def _is_asked_to_save(self) -> bool:
        return self.ranks.any(self.stop.take_save_request())

    def _tell_where_it_is_saved(self) -> None:
        """Answer SIGUSR1 once the save that it asked for has ended; where a disk refused it, that is said already."""
        self._report(self.saver.wait())
        if not self.not_saved:
            say(f"Saved as {self.last_saved}, and going on.")

    def _was_stopped_before_validation(self) -> bool:
        """Whether the last step of an earlier process is one that --val_interval wants validated, and it is not."""
        history = self.state.history
        due = history.under_way.batches_done > 0 and _is_due(history.step, self.facts.options.val_interval)
        return due and history.validated is None

    def _validate_and_commit(self) -> None:
        history = self.state.history
        if history.validated is None:
            self._save_if_it_is_time(self._validation_seconds)
        figures = history.validated or self._validate()
        if figures is None:
            return
        row = self._metrics_of_epoch(figures)
        kept = self._pass_once_more(row)
        if kept is None:
            return
        require_same_state(self.state, self.ranks)
        self._read_clock()
        history.complete_epoch(row, self.training.num_batches_per_epoch)
        self.state.observed.clear()
        self.task.epoch_completed(self.state)
        self.state.kept.update(kept)
        self._save(Kind.EPOCH)
        if self._is_asked_to_save():
            self._tell_where_it_is_saved()
        self.reports.tell(Moment.EPOCH_COMPLETED)  # after the checkpoint: reports can be made from it again
        say(_epoch_line(row, self.facts.options.num_epochs, history))
        self._draw(_is_at_its_end(history, self.facts.options))
        self.reports.tell(Moment.EPOCH_DRAWN)

    def _draw(self, is_last: bool) -> None:
        """Draw what is due; a stop that comes meanwhile is one between two epochs."""
        if self.ranks.is_first:
            with suppress(StopAskedError):
                self.draw(is_last)

    def _validate(self) -> StepMetrics | None:
        """Score the validation part; None if a stop was asked for before its end."""
        began = time.monotonic()
        label = f"epoch {self.state.epoch + 1}/{self.facts.options.num_epochs} validation"
        found = validate(self.state, self.task, self.validation, label, ranks=self.ranks, stop=self.stop)
        self._validation_seconds = time.monotonic() - began
        self.times.skip(time.monotonic())
        return found

    def _pass_once_more(self, row: EpochMetrics) -> Mapping[str, Any] | None:
        """Return what the task keeps of its last pass after the last epoch of all; None if a stop was asked for.

        The first process decides whether it is the last, for others do not know yet which epochs are on no disk.
        """
        history = self.state.history
        completed = replace(history, epoch=row.epoch, epochs=[*history.epochs, row])
        if not self.ranks.broadcast(lambda: _is_at_its_end(completed, self.facts.options)):
            return {}
        return pass_once_more(self.state, self.task, self.training, completed, ranks=self.ranks, stop=self.stop)

    def _metrics_of_epoch(self, validated: StepMetrics) -> EpochMetrics:
        history = self.state.history
        observed = self.state.observed
        trained = self.ranks.broadcast(lambda: self.task.train_figures(history.under_way.mean_loss, observed.joined()))
        found = {**trained, **validated.figures}
        in_order = {figure.name: found[figure.name] for figure in history.figures.all}
        return EpochMetrics(history.epoch + 1, history.step, in_order, self.state.learning_rate)

    def _save(self, kind: Kind, *, by_time: bool = False) -> None:
        """Begin to save the state as it is now, once the save before has ended and what came of it is known."""
        self._report(self.saver.wait())
        lost = self.state.history.lost_epochs
        if kind is Kind.EPOCH and self.state.epoch in lost:  # a second try
            lost.remove(self.state.epoch)
        else:
            self._save_refused_best()
        self._read_clock()
        if self.ranks.saves:
            cost = self.times.cost
            saving = {SAVED_BY_TIME: by_time, COST_KEY: cost.as_dict() if cost else None}
            self.times.begun(time.monotonic())
            self._report(self.saver.begin(*take_snapshot(self.state, self.facts, kind, saving)))
            self.times.skip(time.monotonic())
        self._saved_at = (self.state.step, self.state.epoch)

    def _report(self, outcome: Outcome | None) -> None:
        """Take in how a save ended while training goes on, and say what the disk refused."""
        self._take_in(outcome)
        if outcome and outcome.refused:
            say(f"[WARNING] {outcome.refused}. Training goes on, and the next save tries again.")

    def _take_in(self, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        self._measure(outcome)
        self.not_saved = outcome.refused
        if outcome.path:
            self.last_saved = outcome.path
            self.reports.saved(outcome.record)
        elif outcome.record.kind is Kind.EPOCH:
            self.state.history.lost_epochs.append(outcome.record.epoch)
        self._warn(outcome)

    def _measure(self, outcome: Outcome) -> None:
        """Take in what a save took, and say once what --max_lost costs, or that it cannot hold."""
        self.times.ended(outcome.durable_at, self.saver.blocked.last_seconds + outcome.cpu_seconds)
        if outcome.durable_at is not None and (told := self.times.news(outcome.bytes_on_disk)):
            say(f"[NOTE] {told}.")

    @staticmethod
    def _warn(outcome: Outcome) -> None:
        for warning in outcome.warnings:
            say(f"[WARNING] {warning}.")

    def _read_clock(self) -> None:
        now, history = time.monotonic(), self.state.history
        history.seconds_in_epoch += now - self._clock
        history.training_seconds += now - self._clock
        self._clock = now
        blocked = self.saver.blocked.total_seconds
        history.pace.blocked_seconds += blocked - self._blocked
        self._blocked = blocked

    def _unblocked_clock(self) -> float:
        """Return a time in seconds, of a clock that stands still while saving holds up training."""
        return time.perf_counter() - self.saver.blocked.total_seconds


def _is_due(step: int, interval: int) -> bool:
    """Whether this step is one of every `interval`; 0 is never."""
    return bool(interval) and step % interval == 0


def _is_at_its_end(history: History, options: Options) -> bool:
    """Whether the epoch that was completed last is the last one of all."""
    return is_stalled(history, options.patience) or history.epoch >= options.num_epochs


def _epoch_line(row: EpochMetrics, num_epochs: int, history: History) -> str:
    figures = "  ".join(figure.text(row[figure.name]) for figure in history.figures.all)
    best = "  best so far" if history.best == row else ""
    return f"Epoch {row.epoch}/{num_epochs}  {figures}  {history.times[-1].seconds:.1f} s{best}"
