"""The second place of a run, kept up to date by a thread of its own: whatever it is like, training waits for nothing.

    mirror = Mirror(run_folder, Path("/mnt/disk"), policy)
    with mirror:                    # begins to copy
        mirror.poke()               # something is new
        for line in mirror.news():  # what has changed since it was asked last: refused, slow, up to date again
            say(line)
        mirror.finish(600.0)        # wait for what is new, for so long at most

The thread has the lowest priority, and is a daemon: a mount that answers no more holds up no end. It prints nothing.
A second process that mirrors to the same place is refused by the lock there, and so is this one where another has it.
"""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from training.runs.directory import LOCK_NAME
from training.runs.lock import FileLock
from training.runs.mirror_place import mirror_of
from training.runs.retention import RetentionPolicy
from training.saving.mirror_copy import MirrorFolder
from utils.atomic_files import make_folder
from utils.console import say
from utils.errors import UserError
from utils.folders import is_folder

RETRY_S = 30.0
"""A mirror that refused is tried again so often, and whenever something is new."""
SLOW_S = 60.0
"""A copy that takes longer is told."""
STOP_WAITS_S = 3.0
"""How long a stop waits for the mirror."""
END_WAITS_S = 600.0
"""How long the end of a run waits for a mirror that goes on copying."""
_TOLD_AFTER_S = 5.0
_LOOK_EVERY_S = 0.05


class _ClosedError(OSError):
    """Raised within a copy that is given up, since the process ends."""


def mirror_lock(folder: Path) -> FileLock:
    """Return the lock of a run's mirror."""
    return FileLock(
        folder / LOCK_NAME,
        busy=f"another process trains or mirrors in {folder}",
        advice="wait for it, stop it, or name this run differently with --comment",
        unnoticed="that writes there would not be noticed",
    )


class Mirror:
    """The mirror of one run folder below `root`, held inside a `with` block."""

    def __init__(self, run: Path, root: Path, policy: RetentionPolicy) -> None:
        self.place = mirror_of(run, root)
        self.waits_s = STOP_WAITS_S  # at the end; more where a run is complete
        self._root = root
        self._folder = MirrorFolder(run, self.place, policy, self._insist_open)
        self._thread = threading.Thread(target=self._keep, name="mirror", daemon=True)
        self._changed = threading.Condition()
        self._wanted = self._tried = self._done = 0  # how often something was new, and of which pokes what became
        self._num_failures = 0
        self._is_closed = False
        self._began_pass: float | None = None
        self._device: int | None = None
        self._trouble = ""
        self._complaints: list[str] = []
        self._told: tuple[str, ...] = ()
        self._told_trouble, self._was_slow = "", False

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what is being copied; returns within a moment, whatever the mirror does."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(STOP_WAITS_S)

    def poke(self) -> None:
        """Say that something is new in the run folder."""
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()

    @property
    def state(self) -> str:
        """How the mirror stands, for the run page."""
        if self._trouble:
            return f"{self.place}: {self._trouble}"
        if self._done >= self._wanted:
            return f"{self.place}: up to date"
        copying = self._folder.copying
        return f"{self.place}: copying {copying.name} ({100 * copying.share:.0f} %)"

    def news(self) -> list[str]:
        """Return a sentence for each thing that has changed since the last call."""
        lines = [f"[WARNING] {one}" for one in self._complaints if one not in self._told]
        self._told = tuple(self._complaints)
        trouble, began = self._trouble, self._began_pass
        if trouble and trouble != self._told_trouble:
            lines.append(f"[WARNING] The mirror {self.place}: {trouble}. Training goes on, and it is tried again.")
        elif self._told_trouble and not trouble:
            lines.append(f"The mirror {self.place} is up to date again.")
        is_slow = began is not None and time.monotonic() - began > SLOW_S
        if is_slow and not self._was_slow:
            copying = self._folder.copying
            lines.append(
                f"[NOTE] The mirror {self.place} is slow: after {SLOW_S:.0f} s it has {100 * copying.share:.0f} % of "
                f"{copying.name}. Training does not wait for it."
            )
        self._told_trouble, self._was_slow = trouble, is_slow
        return lines

    def finish(self, most_seconds: float) -> bool:
        """Wait until the mirror has all that the run folder has; return whether it has.

        For so long at most, not where it refuses, and not where it stands still for a minute. A long wait is told.
        """
        self.poke()
        tell_at = time.monotonic() + _TOLD_AFTER_S
        end = time.monotonic() + most_seconds
        seen, moved_at = -1, time.monotonic()
        with self._changed:
            failures = self._num_failures
            while self._done < self._wanted and self._num_failures == failures and self._thread.is_alive():
                now = time.monotonic()
                if self._folder.copying.bytes_done != seen:
                    seen, moved_at = self._folder.copying.bytes_done, now
                if now >= end or now - moved_at > SLOW_S:
                    break
                if now >= tell_at:
                    tell_at = math.inf
                    say(
                        f"[NOTE] Waiting for the mirror {self.state}, {most_seconds:.0f} s at most; Ctrl-C leaves the "
                        "rest to the next start"
                    )
                self._changed.wait(_LOOK_EVERY_S)
            return self._done >= self._wanted

    def _insist_open(self) -> None:
        if self._is_closed:
            raise _ClosedError(errno.ECANCELED, "the process ends")

    def _keep(self) -> None:
        with suppress(OSError, AttributeError):  # of this thread alone, on Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while self._wait_for_work():
            try:
                with self._held():
                    while self._pass() and self._wait_for_work():
                        pass
            except (OSError, UserError) as error:
                self._has_failed(error)

    def _wait_for_work(self) -> bool:
        """Return once something is new, or what was refused is to be tried again; False when the process ends."""
        with self._changed:
            limit = RETRY_S if self._trouble else None
            self._changed.wait_for(lambda: self._is_closed or self._wanted > self._tried, limit)
            return not self._is_closed

    @contextmanager
    def _held(self) -> Iterator[None]:
        self._insist_there()
        make_folder(self.place)
        with mirror_lock(self.place):
            yield

    def _insist_there(self) -> None:
        """Raise OSError where the mirror's own folder is gone, or is not on the disk that it was on."""
        if not is_folder(self._root):
            raise OSError(errno.ENOENT, "it does not exist (make it, or mount its disk)", str(self._root))
        device = self._root.stat().st_dev
        if self._device is None:
            self._device = device
        if device != self._device:
            raise OSError(errno.ENODEV, "its disk was unmounted", str(self._root))

    def _pass(self) -> bool:
        """Bring the mirror up to date once; return whether its lock is still in place."""
        self._insist_there()
        if not (self.place / LOCK_NAME).exists():
            return False
        self._tried = wanted = self._wanted
        self._began_pass = time.monotonic()
        try:
            self._complaints = self._folder.bring_up_to_date()
        finally:
            self._began_pass = None
        with self._changed:
            self._trouble, self._done = "", wanted
            self._changed.notify_all()
        return True

    def _has_failed(self, error: OSError | UserError) -> None:
        if isinstance(error, _ClosedError):
            return
        reason = str(error)
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            reason = f"{where}{error.strerror or error}"
        with self._changed:
            self._trouble = reason
            self._num_failures += 1
            self._tried = self._wanted
            self._changed.notify_all()
