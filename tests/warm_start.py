"""The program as a process of its own that need not import torch first: it is forked from one that did nothing else.

    with WarmProgram(folder, "--database_path", ...) as program:
        program.stdout.readline(); program.send_signal(signal.SIGKILL); code, said = program.end()

Importing torch and transformers takes 4 s of a core, which is more than a small training takes. Signals, output and
exit codes are those of `python main.py`; what Python does after the program has ended is not done.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
# What trainings and evaluations import; the first step of an optimizer imports the second.
_IMPORTED = [
    "training.loop.session",
    "torch._dynamo",
    "transformers.models.wav2vec2.modeling_wav2vec2",
    "training.evaluation.evaluation_set",
]


@cache
def _context() -> multiprocessing.context.ForkServerContext:
    """Start the process that all programs are forked from, with one thread, as they have."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    with contextlib.chdir(REPOSITORY), pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context


class WarmProgram:
    """The program, started in `folder` in a session of its own; `stdout` has what it prints, errors too.

    `first` is code to run before it. Where the block is left too early, the whole session is killed.
    """

    def __init__(self, folder: Path, *arguments: str, first: str = "") -> None:
        reading, writing = multiprocessing.Pipe(duplex=False)
        self._process = _context().Process(target=_be_program, args=(writing, folder, arguments, first))
        self._process.start()
        writing.close()
        self.stdout = os.fdopen(os.dup(reading.fileno()))
        reading.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running():
            os.killpg(self.pid, signal.SIGKILL)
        self._process.join()
        self.stdout.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.is_alive()

    def wait(self, seconds: float) -> None:
        """Return when it has ended, or after so long."""
        self._process.join(seconds)

    def send_signal(self, number: signal.Signals) -> None:
        if self.is_running():
            os.kill(self.pid, number)

    def end(self, timeout_s: float = 240) -> tuple[int, str]:
        """Wait until it has ended, and return its exit code, below 0 for a signal, and what had not been read."""
        late = threading.Timer(timeout_s, self.send_signal, (signal.SIGKILL,))
        late.start()
        said = self.stdout.read()
        self._process.join()
        late.cancel()
        assert self._process.exitcode is not None
        return self._process.exitcode, said


def _be_program(writing: Connection, folder: Path, arguments: tuple[str, ...], first: str) -> None:
    os.setsid()
    for number in (1, 2):
        os.dup2(writing.fileno(), number)
    writing.close()
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
    os.chdir(folder)
    sys.argv = [str(REPOSITORY / "main.py"), *arguments]
    exec(first, {})
    runpy.run_path(sys.argv[0], run_name="__main__")
