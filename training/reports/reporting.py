"""All that tells of a run in one list, always made from its history, so that no report can disagree with it.

Two rules hold for all of them. A report that cannot be written costs one warning, and is tried again at the next epoch.
And a new run tells no figures before its first save has ended: until then a kill leaves nothing that can go on, and its
figures would stay behind as those of another run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from training.checkpoints.record import CheckpointRecord
from training.reports.story import Moment, Story
from utils.console import say
from utils.errors import UserError
from utils.waiting import NEVER


class Reporter(Protocol):
    """Something that tells of a run: a file, a page, a service."""

    @property
    def place(self) -> object:
        """Where it tells, as a warning names it."""

    @property
    def moments(self) -> frozenset[Moment]:
        """When it wants to be asked."""

    def tell(self, story: Story) -> None:
        """Tell what it has not told yet, or all of it anew; raises OSError or UserError where that is impossible.

        What earlier processes wrote is replaced at the first call, so each point appears once however often the run
        stopped, and what came after the checkpoint is gone.
        """

    def close(self) -> None:
        """Let go of what is open; raises OSError where the disk says only now that it did not take all of it."""


class Reports:
    """The reporters of one run, and the story that they are told; `story` gives it as it is now.

    `is_new` is whether nothing of the run was ever saved. `interrupted` says in words why this process trains no more
    although the run is not complete, "" while it does. `stop` is the request that ends what is read for the reports.
    """

    def __init__(self, reporters: Sequence[Reporter], story: Callable[[], Story], *, is_new: bool = False) -> None:
        self._reporters = reporters
        self._story = story
        self._held_back: list[Moment] | None = [] if is_new else None
        self._saved: CheckpointRecord | None = None
        self._lacking: list[Reporter] = []
        self.interrupted = ""
        self.stop = NEVER

    def tell(self, moment: Moment) -> None:
        """Let everybody tell who wants to at this moment, and after an epoch who could not before."""
        if self._held_back is not None and moment is not Moment.BEGUN:
            self._held_back.append(moment)
            return
        wanting = [reporter for reporter in self._reporters if moment in reporter.moments]
        if moment in (Moment.EPOCH_COMPLETED, Moment.ENDED):
            wanting += [reporter for reporter in self._lacking if reporter not in wanting]
        if wanting:
            story = replace(self._story(), moment=moment, saved=self._saved, interrupted=self.interrupted)
            self._ask(wanting, story)

    def saved(self, record: CheckpointRecord) -> None:
        """Take in that this checkpoint is on disk."""
        self._saved = record
        self.hold_no_more()
        self.tell(Moment.SAVED)

    def hold_no_more(self) -> None:
        """Tell what a new run held back, since its first save has ended, well or not."""
        held_back, self._held_back = self._held_back or [], None
        for moment in dict.fromkeys(held_back):
            self.tell(moment)

    def end(self) -> None:
        """Let all of them tell for the last time, and close them."""
        self.hold_no_more()
        self.tell(Moment.ENDED)
        for reporter in self._reporters:
            try:
                reporter.close()
            except OSError as error:
                if reporter not in self._lacking:  # else it was said
                    say(f"[WARNING] {reporter.place} may not be complete: {error.strerror or error}.")

    def _ask(self, reporters: Iterable[Reporter], story: Story) -> None:
        for reporter in reporters:
            try:
                reporter.tell(story)
            except (OSError, UserError) as error:
                if reporter not in self._lacking:
                    self._lacking.append(reporter)
                    reason = (error.strerror if isinstance(error, OSError) else None) or error
                    say(
                        f"[WARNING] {reporter.place} could not be written: {reason}. "
                        "Training goes on, and the next epoch tries again."
                    )
            else:
                self._lacking = [one for one in self._lacking if one is not reporter]
