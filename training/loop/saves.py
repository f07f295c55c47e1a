"""The saves of a run that trains: begun when due, taken in when they end, tried again where a disk refused them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from training.checkpoints.record import SAVED_BY_TIME, Kind
from training.loop.taking_over import TakenOver
from training.planning.announcements import unsaved_text
from training.planning.save_cost import COST_KEY
from training.reports.reporting import Reports
from training.saving.background_saving import Saver
from training.saving.commit import Committer, Outcome
from training.saving.dead_disk import DeadDiskError
from training.saving.save_times import SaveTimes
from training.state.snapshot import RunFacts, take_snapshot
from training.state.train_state import TrainState
from utils.console import say
from utils.ending import leave_now
from utils.ranks import Alone, Ranks
from utils.waiting import say_aside


@dataclass
class Saves:
    """What saves `state`, and what is known of its saves; of several processes the first saves, or the one that lives.

    `committer` is what the saver hands its saves to, and `times` says when to save by time. `last_saved` is the
    checkpoint that the state came from or was last written to, None before the first. A disk that refuses a checkpoint
    does not end the run: `not_saved` then says why the newest checkpoint is on no disk, and the next save tries again.
    """

    state: TrainState
    facts: RunFacts
    saver: Saver[Outcome]
    committer: Committer
    reports: Reports
    last_saved: Path | None
    ranks: Ranks = field(default_factory=Alone)
    times: SaveTimes = field(default_factory=SaveTimes)
    not_saved: str = ""
    _saved_at: tuple[int, int] | None = None
    _clock: float = field(default_factory=time.monotonic)
    _blocked: float = 0.0

    def where_it_stands(self) -> None:
        """Put the state as it is on disk, unless it is there already, and wait until it is.

        What was refused is tried once more, since no other save comes.
        """
        outcome = self.saver.wait()
        self._take_in(outcome)
        if outcome and outcome.refused:
            say(f"[WARNING] {outcome.refused}. It is tried once more.")
        is_news = self._save_refused()
        if not self.ranks.saves:
            return
        if self.state.history.under_way.batches_done:
            if self._saved_at != (self.state.step, self.state.epoch) or self.not_saved or is_news:
                self.begin(Kind.STEP)
        elif self.not_saved or is_news:
            self.begin(Kind.EPOCH)
        self.settle()
        self.committer.catch_up()

    def _save_refused(self) -> bool:
        """Try again to save the epoch that was refused and kept; return whether checkpoints that came later lack that.

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

    def what_is_saved(self) -> str:
        """Return in words from which checkpoint the run goes on."""
        if self.last_saved is None:
            return "Nothing is saved yet"
        return f"{self.not_saved + '. ' if self.not_saved else ''}--auto_resume goes on from {self.last_saved}"

    def take_over(self, taken: TakenOver) -> None:
        """Save the state as the process that takes over from a dead one, which may have saved it itself."""
        self.saver, self.last_saved = taken.saver, taken.newest
        history = self.state.history
        if history.step and not taken.has_state:
            self.begin(Kind.STEP if history.under_way.batches_done else Kind.EPOCH)
            self.settle()

    def settle(self) -> None:
        """Wait for the save that is under way, and take in how it ended."""
        self._take_in(self.saver.wait())

    def collect(self) -> None:
        """Take in how a save ended, if one did, without waiting."""
        self._report(self.saver.collect())

    def make_if_due(self, next_in: float, ahead: float) -> None:
        """Save within the epoch if that is due by time; until this is asked again it lasts `ahead`, or a step.

        `next_in` seconds from now is a save by steps or epochs expected. All processes ask, and the first decides.
        """
        is_new = self._saved_at != (self.state.step, self.state.epoch)
        is_due = self.times.is_due(time.monotonic(), next_in, ahead)
        if self.ranks.any(self.ranks.is_first and is_due and is_new):
            self.begin(Kind.STEP, by_time=True)

    def agree(self) -> None:
        """Let all processes know what is saved, as the first does."""
        history = self.state.history
        self.last_saved, self.not_saved, history.lost_epochs[:] = self.ranks.broadcast(
            lambda: (self.last_saved, self.not_saved, history.lost_epochs)
        )

    def leave_dead_disk(self, error: DeadDiskError, exit_code: int) -> NoReturn:
        """Say that the disk is given up, and end the process; no other one may wait for that disk in its place."""
        text = unsaved_text(str(error), self.last_saved)
        say_aside(f"error: {text}")
        self.ranks.fail(str(error), exit_code)
        self.ranks.conclude(lambda: (self.last_saved, text))
        self.ranks.close()
        leave_now(exit_code)

    def tell_where(self) -> None:
        """Answer SIGUSR1 once the save that it asked for has ended; where a disk refused it, that is said already."""
        self.end_earlier()
        if not self.not_saved:
            say(f"Saved as {self.last_saved}, and going on.")

    def begin(self, kind: Kind, *, by_time: bool = False) -> None:
        """Begin to save the state as it is now, once the save before has ended and what came of it is known."""
        self.end_earlier()
        lost = self.state.history.lost_epochs
        if kind is Kind.EPOCH and self.state.epoch in lost:  # a second try
            lost.remove(self.state.epoch)
        else:
            self._save_refused()
        self.read_clock()
        if self.ranks.saves:
            cost = self.times.cost
            saving = {SAVED_BY_TIME: by_time, COST_KEY: cost.as_dict() if cost else None}
            self.times.begun(time.monotonic())
            self._report(self.saver.begin(*take_snapshot(self.state, self.facts, kind, saving)))
            self.times.skip(time.monotonic())
        self._saved_at = (self.state.step, self.state.epoch)

    def end_earlier(self) -> None:
        """Wait for the save that is under way while training goes on, and say what the disk refused."""
        self._report(self.saver.wait())

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
        self.reports.hold_no_more()
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

    def start_clock(self) -> None:
        """Say that training begins: what was until now is no time of it, and nothing is lost yet."""
        self._clock = time.monotonic()
        self.times.start(self._clock)

    def read_clock(self) -> None:
        """Add the time since the last reading to that of training, and what of it saving held up."""
        now, history = time.monotonic(), self.state.history
        history.seconds_in_epoch += now - self._clock
        history.training_seconds += now - self._clock
        self._clock = now
        blocked = self.saver.blocked.total_seconds
        history.pace.blocked_seconds += blocked - self._blocked
        self._blocked = blocked

    def unblocked_clock(self) -> float:
        """Return a time in seconds, of a clock that stands still while saving holds up training."""
        return time.perf_counter() - self.saver.blocked.total_seconds
