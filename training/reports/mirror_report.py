"""The mirror of a run as one of its reporters: it copies what is new, and says what became of that."""

from __future__ import annotations

from pathlib import Path

from training.reports.story import Moment, Story
from training.saving.mirror import Mirror
from utils.console import say


class MirrorReport:
    """Wakes the mirror, which copies beside training, and says what has changed there since it was asked last."""

    moments = frozenset({Moment.BEGUN, Moment.SAVED, Moment.EPOCH_COMPLETED, Moment.EPOCH_DRAWN})

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    @property
    def place(self) -> Path:
        """Where the copies lie."""
        return self._mirror.place

    def tell(self, story: Story) -> None:  # noqa: ARG002  (all that the mirror needs is in the run folder)
        """Wake the mirror; what the disk there refuses is said, and delays nothing."""
        self._mirror.poke()
        for line in self._mirror.news():
            say(line)

    def close(self) -> None:
        """Nothing is open that a disk could still refuse."""
