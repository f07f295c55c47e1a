"""The training loop: epochs of steps, a validation after each, a checkpoint after that; stopped anywhere, it saves.

A resumed run and a fresh one take the same path through here: the state says where it stands.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from training.checkpoints.history import History, is_stalled
from training.checkpoints.record import Kind
from training.checkpoints.rows import EpochMetrics, StepMetrics
from training.data.batches import TrainingBatches, ValidationBatches
from training.data.reading import DataError, read
from training.data.shares import Share
from training.loop.exchange import Exchange
from training.loop.passes import pass_once_more, validate
from training.loop.same_state import require_same_state
from training.loop.saves import Saves
from training.loop.step import take_step
from training.loop.taking_over import TakenOver
from training.loop.undoing import StepUndo
from training.planning.announcements import out_of_memory_text
from training.reports.reporting import Reports
from training.reports.story import Moment
from training.settings.options import Options
from training.state.snapshot import RunFacts
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

    `draw` is called at the end of each epoch, and told whether it is the last one; `left_to_draw` says that a stop came
    meanwhile. `take_over` lets another process save once the first is dead, or raises UserError.
    """

    state: TrainState
    task: Task
    training: TrainingBatches
    validation: ValidationBatches
    saves: Saves
    reports: Reports
    facts: RunFacts
    stop: StopRequest
    draw: Callable[[bool], None]
    ranks: Ranks = field(default_factory=Alone)
    take_over: Callable[[], TakenOver] | None = None
    left_to_draw: bool = False
    _began_at: int = 0
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
    def _outlives_a_process(self) -> bool:
        """Whether what was trained can be saved after another process died: not from a GPU, which waits for it."""
        return self.ranks.count > 1 and self.task.device.type != "cuda"

    @property
    def _is_to_stop(self) -> bool:
        return stop_asked(self.ranks, self.stop)

    def train(self) -> None:
        """Train until `is_done` or a stop is asked for; then `last_saved` is the state as it is.

        Raises UserError where training cannot go on; what was trained is saved first, unless it diverged or memory
        ran out in the middle of an update.
        """
        self.saves.start_clock()
        self._began_at = self.state.step
        self._share = Share(self.ranks.index, self.ranks.count, self.facts.options.accumulate_steps)
        self._exchange = Exchange(self.ranks.group, self._share) if self.ranks.count > 1 else None
        self._undo = StepUndo.of(self.state, self.task.phases, is_kept=self._outlives_a_process)
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
            raise UserError(f"{cause}. {self.saves.what_is_saved()}") from cause

    def _train_and_save(self) -> DataError | None:
        """Train and put the state on disk; return what could not be read, if that ended it."""
        cause = None
        try:
            if self._was_stopped_before_validation():
                self._after_step()
            if self._is_right_after_an_epoch():  # what was to be drawn then may not be there
                self._draw(is_last=False)
            while not self._is_done_for_all() and not self._is_to_stop:
                if not self.state.history.under_way.is_trained:
                    self._train_epoch()
                if not self._is_to_stop:
                    self._validate_and_commit()
        except StopAskedError:  # between two steps, and validation is done again
            _ = self._is_to_stop  # by which signal
        except DataError as error:
            cause = error
        self.saves.where_it_stands()
        self.saves.agree()
        if cause or self.is_done or self._is_to_stop:
            return cause
        return self._train_and_save()  # the best epoch was refused, and is saved now: --patience begins there

    def _end_after(self, failure: Failure) -> None:
        """End what cannot go on because of one process; the lowest that lives saves what was trained, if that is whole.

        Raises UserError, the same in all of them.
        """
        gc.collect()
        is_whole = self._undo.undo()
        self.saves.last_saved, self.saves.not_saved = self.ranks.conclude(lambda: self._saved_after(failure, is_whole))
        raise UserError(f"{failure.text.rstrip('.')}. {self.saves.what_is_saved()}", failure.exit_code)

    def _saved_after(self, failure: Failure, is_whole: bool) -> tuple[Path | None, str]:
        """Save what was trained and return where it is, and why it is on no disk, if it is not.

        Nothing is saved from a GPU that waits for a dead process.
        """
        if not is_whole or (failure.is_lost and not self._outlives_a_process):
            self.saves.settle()
            return self.saves.last_saved, self.saves.not_saved
        try:
            if self.take_over and not self.ranks.is_first:
                taken = self.take_over()
                self.saves.take_over(taken)
            else:
                self.saves.where_it_stands()
        except UserError as error:
            return self.saves.last_saved, str(error)
        return self.saves.last_saved, self.saves.not_saved

    def _end_for_want_of_memory(self, shortage: str) -> None:
        """Raise UserError, once what was trained is saved if it is whole and there is memory enough for that."""
        gc.collect()
        torch.cuda.empty_cache()
        try:
            if self._undo.undo():
                self.saves.where_it_stands()
        except (MemoryError, RuntimeError, OSError) as error:
            if not memory_shortage(error):
                raise
        self.saves.settle()
        raise UserError(f"{out_of_memory_text(shortage, self.state.history)} {self.saves.what_is_saved()}")

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
            began = self.saves.unblocked_clock()
            steps = self.training.steps(history.epoch + 1, under_way.batches_done, self._share, self.stop)
            for given in read(steps, self.ranks):
                for network in state.networks.values():
                    network.train()
                with self._undo.step():
                    result = take_step(state, self.task, given, self.ranks, self._exchange)
                history.pace.steps += 1
                history.pace.step_seconds += self.saves.unblocked_clock() - began
                if history.step == self._began_at + 1:  # only now do the optimizers have their moments
                    self.saves.saver.prepare()
                under_way.add(result.loss, result.utterances, given.num_batches)
                for observed in result.observed:
                    state.observed.add(observed)
                bar.advance(result.utterances, under_way.mean_loss, self._running_figure, given.num_batches)
                self.saves.collect()
                if not self._is_to_stop:
                    self._after_step()
                if self._is_to_stop:
                    return
                began = self.saves.unblocked_clock()

    def _running_figure(self) -> str:
        return self.task.running_figure(self.state.observed.joined)

    def _after_step(self) -> None:
        """Validate and save within the epoch, where this step is one at which that was asked for."""
        history, options = self.state.history, self.facts.options
        if _is_due(history.step, options.val_interval):
            self.saves.make_if_due(self._next_save_in(), self._validation_seconds)
            figures = self._validate()
            if figures is None:
                return
            history.validations.append(figures)
            history.validation_times.append(time.time())
            self.reports.tell(Moment.STEP_VALIDATED)
        asked_for = self._is_asked_to_save()
        if asked_for or _is_due(history.step, options.save_interval):
            self.saves.begin(Kind.STEP)
        else:
            self.saves.make_if_due(self._next_save_in(), ahead=0.0)
        if asked_for:
            self.saves.tell_where()

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

    def _was_stopped_before_validation(self) -> bool:
        """Whether the last step of an earlier process is one that --val_interval wants validated, and it is not."""
        history = self.state.history
        due = history.under_way.batches_done > 0 and _is_due(history.step, self.facts.options.val_interval)
        return due and history.validated is None

    def _is_right_after_an_epoch(self) -> bool:
        """Whether an earlier process completed an epoch and nothing was trained since."""
        history = self.state.history
        return history.epoch > 0 and history.step == self._began_at and not history.under_way.batches_done

    def _validate_and_commit(self) -> None:
        history = self.state.history
        if history.validated is None:
            self.saves.make_if_due(self._next_save_in(), self._validation_seconds)
        figures = history.validated or self._validate()
        if figures is None:
            return
        row = self._metrics_of_epoch(figures)
        kept = self._pass_once_more(row)
        if kept is None:
            return
        require_same_state(self.state, self.ranks)
        self.saves.read_clock()
        history.complete_epoch(row, self.training.num_batches_per_epoch)
        self.state.observed.clear()
        self.task.epoch_completed(self.state)
        self.state.kept.update(kept)
        self.saves.begin(Kind.EPOCH)
        if self._is_asked_to_save():
            self.saves.tell_where()
        self.reports.tell(Moment.EPOCH_COMPLETED)  # after the checkpoint: reports can be made from it again
        say(_epoch_line(row, self.facts.options.num_epochs, history))
        self._draw(_is_at_its_end(history, self.facts.options))
        self.reports.tell(Moment.EPOCH_DRAWN)

    def _draw(self, is_last: bool) -> None:
        """Draw what is due; a stop that comes meanwhile is one between two epochs, and the next process draws."""
        if self.ranks.is_first:
            try:
                self.draw(is_last)
            except StopAskedError:
                self.left_to_draw = True
                say("Stopped while pictures of this epoch were drawn: the same command with --auto_resume draws them.")

    def _validate(self) -> StepMetrics | None:
        """Score the validation part; None if a stop was asked for before its end."""
        began = time.monotonic()
        label = f"epoch {self.state.epoch + 1}/{self.facts.options.num_epochs} validation"
        found = validate(self.state, self.task, self.validation, label, ranks=self.ranks, stop=self.stop)
        self._validation_seconds = time.monotonic() - began
        self.saves.times.skip(time.monotonic())
        return found

    def _pass_once_more(self, row: EpochMetrics) -> Mapping[str, Any] | None:
        """Return what the task keeps of its last pass after the last epoch of all; None if a stop was asked for.

        The first process decides whether it is the last, for others do not know yet which epochs are on no disk.
        """
        history = self.state.history
        self.saves.end_earlier()  # a best epoch that is on no disk is none, for --patience
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
