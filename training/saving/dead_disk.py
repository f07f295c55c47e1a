"""When a disk is taken for dead: a stop then waits no longer for a checkpoint that may never be written."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from training.saving.save_control import SaveControl
from utils.interruption import StopRequest
from utils.waiting import say_aside

SILENT_S = 25.0
"""Longer than a write or a sync takes on a slow disk, and less than the 30 s that Slurm waits before it kills."""
_TOLD_AFTER_S = 3.0


class DeadDiskError(Exception):
    """After SIGTERM a disk took nothing of a checkpoint for so long that this was given up; its thread hangs on."""

    def __init__(self) -> None:
        super().__init__(f"the disk has taken nothing of a checkpoint for {SILENT_S:.0f} s, and that one is given up")


class Patience(StopRequest):
    """Asks for a stop of the wait for one save: after SIGTERM, once the save has begun no write for `SILENT_S`.

    Ctrl-C alone does not: who typed it sees the line about the second one.
    """

    def __init__(self, stop: StopRequest, save: SaveControl, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._stop, self._save, self._clock = stop, save, clock
        self._since_s: float | None = None
        self._has_told = False

    @property
    def requested(self) -> bool:
        """Whether the disk is taken for dead."""
        if self._stop.signal is not signal.SIGTERM:
            return False
        now_s = self._clock()
        self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - self._since_s >= _TOLD_AFTER_S and not self._has_told:
            self._has_told = True
            say_aside(
                "[NOTE] SIGTERM: waiting for the disk to take a checkpoint; if it takes nothing for "
                f"{SILENT_S:.0f} s, that one is given up"
            )
        return now_s - max(self._since_s, self._save.heard_at_s) >= SILENT_S
