"""One process that works in a folder, from its start to its end, and the ways in which it is ended."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from benchmarks.measuring import PROGRAM
from main import main as run_program

TRAINING_BEGAN = "Training "
SECONDS_TO_KILL_AFTER_SIGTERM = 0.2
LONGEST_STOP_S = 120.0  # on a machine that does other things too


class Death(Enum):
    """How a process is ended: by which signals, and whether its process group gets them too."""

    KILL = "SIGKILL"
    KILL_GROUP = "SIGKILL to the group"
    TERM = "SIGTERM"
    TERM_GROUP = "SIGTERM to the group"
    TERM_THEN_KILL = "SIGTERM, then SIGKILL"

    @property
    def ends_with_sigkill(self) -> bool:
        """Whether it gives a process no time to save."""
        return self in (Death.KILL, Death.KILL_GROUP, Death.TERM_THEN_KILL)

    @property
    def reaches_the_group(self) -> bool:
        """Whether the processes that read audio get the signal too."""
        return self in (Death.KILL_GROUP, Death.TERM_GROUP)


@dataclass
class Life:
    """A process that runs the command `arguments` in `folder`: a fork of this one, or `python main.py` if `is_fresh`.

    A fork has imported all that training needs: it starts in a tenth of a second instead of five, and the process and
    its death are as real.
    """

    folder: Path
    arguments: tuple[str, ...]
    is_fresh: bool = False

    def __post_init__(self) -> None:
        self._said = self.folder / "said.txt"
        self._said.unlink(missing_ok=True)  # what the life before said
        target = _exec if self.is_fresh else _run
        self._process = multiprocessing.get_context("fork").Process(
            target=target, args=(self.folder, self._said, self.arguments)
        )
        self._process.start()

    @property
    def is_running(self) -> bool:
        """Whether it is neither killed nor done."""
        return self._process.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for its end, or some seconds.

        Not by `join`, which waits for the end of a pipe: exec closes it, and the readers of a killed process hold it.
        """
        end_s = time.monotonic() + seconds if seconds is not None else math.inf
        while self.is_running and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(0.01, left_s))

    def wait_until_it_trains(self) -> None:
        """Wait for the line that says so, or its end."""
        while self.is_running and TRAINING_BEGAN not in self.said:
            time.sleep(0.01)

    def end(self, death: Death) -> None:
        """Send the signals and return when it is dead; raises AssertionError where SIGTERM does not end it in time."""
        if death is not Death.KILL and death is not Death.KILL_GROUP:
            self._send(signal.SIGTERM, death.reaches_the_group)
            self.wait(LONGEST_STOP_S if not death.ends_with_sigkill else SECONDS_TO_KILL_AFTER_SIGTERM)
        obeyed = not self.is_running
        if death.ends_with_sigkill or not obeyed:
            self._send(signal.SIGKILL, death.reaches_the_group)
        self._process.join()
        assert obeyed or death.ends_with_sigkill, f"still there {LONGEST_STOP_S:.0f} s after SIGTERM:\n{self.said}"

    def _send(self, number: signal.Signals, to_group: bool) -> None:
        if not self.is_running:
            return
        assert self._process.pid is not None
        try:
            (os.killpg if to_group else os.kill)(self._process.pid, number)
        except ProcessLookupError:  # before it had a process group of its own
            os.kill(self._process.pid, number)

    @property
    def exit_code(self) -> int | None:
        """As of multiprocessing: -9 after SIGKILL."""
        return self._process.exitcode

    @property
    def said(self) -> str:
        """Everything it printed."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""


def _run(folder: Path, said: Path, arguments: tuple[str, ...]) -> None:
    _settle(folder, said)
    sys.exit(run_program(arguments))


def _exec(folder: Path, said: Path, arguments: tuple[str, ...]) -> None:
    _settle(folder, said)
    os.execv(PROGRAM[0], (*PROGRAM, *arguments))


def _settle(folder: Path, said: Path) -> None:
    """Become a process like one started by a shell in `folder`, its output in a file."""
    os.setsid()
    os.chdir(folder)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
