"""One process that works in a folder, from its start to its end, and the ways in which it is ended."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from benchmarks.killing.phases import Aim, Board, tell_phases
from benchmarks.measuring import PROGRAM
from main import main as run_program

TRAINING_BEGAN = "Training "
FRESH_START, FRESH_TRAINING = "python main.py, starting", "python main.py, training"
POLL_S = 0.005
LONGEST_STOP_S = 120.0  # on a machine that does other things too
Program = Callable[[Sequence[str]], int]


class Death(Enum):
    """How a process is ended: by which signals, and whether its process group gets them too."""

    KILL = "SIGKILL"
    KILL_GROUP = "SIGKILL to the group"
    TERM = "SIGTERM"
    TERM_GROUP = "SIGTERM to the group"
    TERM_THEN_KILL = "SIGTERM, then SIGKILL"

    @property
    def first_signal(self) -> signal.Signals:
        """The one that is sent first."""
        return signal.SIGKILL if self in (Death.KILL, Death.KILL_GROUP) else signal.SIGTERM

    @property
    def reaches_the_group(self) -> bool:
        """Whether the processes that read audio get the signal too."""
        return self in (Death.KILL_GROUP, Death.TERM_GROUP)


@dataclass
class Life:
    """A process that runs the command `arguments` in `folder`: a fork of this one, or `python main.py` if `is_fresh`.

    A fork has imported all that training needs: it starts in a tenth of a second instead of five, and the process and
    its death are as real. It runs `program`, and is sent the first signal of `death` at the first of `aims`; a fresh
    one cannot be aimed at in that way.
    """

    folder: Path
    arguments: tuple[str, ...]
    aims: tuple[Aim, ...] = ()
    death: Death = Death.KILL
    is_fresh: bool = False
    program: Program = run_program

    def __post_init__(self) -> None:
        self.board = Board()
        self._said = self.folder / "said.txt"
        self._said.unlink(missing_ok=True)  # what the life before said
        self._process = multiprocessing.get_context("fork").Process(target=self._begin)
        self._process.start()

    def _begin(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _settle(self.folder, self._said)
        if self.is_fresh:
            os.execv(PROGRAM[0], (*PROGRAM, *self.arguments))
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        tell_phases(self.board, self.aims, self.death.first_signal)
        sys.exit(self.program(self.arguments))

    @property
    def is_running(self) -> bool:
        """Whether it is neither killed nor done."""
        return self._process.is_alive()

    def wait(self, seconds: float = math.inf, *, until: Callable[[], bool] = lambda: False) -> None:
        """Wait for its end, or some seconds, or until something is so.

        Not by `join`, which waits for the end of a pipe: exec closes it, and the readers of a killed process hold it.
        """
        end_s = time.monotonic() + seconds
        while self.is_running and not until() and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(POLL_S, left_s))

    def wait_until_it_trains(self) -> None:
        """Wait for the line that says so, or its end."""
        self.wait(until=lambda: TRAINING_BEGAN in self.said)

    def wait_until_it_is_struck(self) -> None:
        """Wait for the moment that was aimed at, or its end."""
        self.wait(until=lambda: self.board.is_due)

    def end(self, kill_after_s: float) -> None:
        """Send the signals and return when it is dead; raises AssertionError where SIGTERM does not end it in time.

        `kill_after_s` are the seconds between SIGTERM and SIGKILL where both are sent.
        """
        self._send(self.death.first_signal)
        if self.death.first_signal is signal.SIGTERM:
            self.wait(kill_after_s if self.death is Death.TERM_THEN_KILL else LONGEST_STOP_S)
        obeyed = not self.is_running
        if not obeyed:
            self._send(signal.SIGKILL)
        self._process.join()
        in_time = obeyed or self.death not in (Death.TERM, Death.TERM_GROUP)
        assert in_time, f"still there {LONGEST_STOP_S:.0f} s after SIGTERM:\n{self.said}"

    def _send(self, number: signal.Signals) -> None:
        """Send a signal to the process if it is there, or to its group, in which it may be dead."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError):
            if self.death.reaches_the_group:
                os.killpg(self._process.pid, number)
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    @property
    def exit_code(self) -> int | None:
        """As of multiprocessing: -9 after SIGKILL."""
        return self._process.exitcode

    @property
    def said(self) -> str:
        """Everything it printed."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""

    @property
    def where(self) -> str:
        """The phase that it is in, or was in when it was killed."""
        if self.is_fresh:
            return FRESH_TRAINING if TRAINING_BEGAN in self.said else FRESH_START
        return self.board.where


def _settle(folder: Path, said: Path) -> None:
    """Become a process like one started by a shell in `folder`, its output in a file."""
    os.setsid()
    os.chdir(folder)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
