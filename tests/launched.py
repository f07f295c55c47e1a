"""Several processes of one run on this machine, as forks that have imported all they need; what befalls one of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._C._distributed_c10d import TCPStore

from main import main
from training.loop import session  # noqa: F401  (once, for all forks)
from training.loop.step import take_step

ENDS_WITHIN_S = 120.0  # of a machine that does other things too
_STORES: list[object] = []  # for good: a fork that frees one waits for a thread that it has not


def environment_of(index: int, count: int, port: int) -> dict[str, str]:
    """Return what torchrun tells a process of this machine."""
    numbers = {"RANK": index, "WORLD_SIZE": count, "LOCAL_RANK": index, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    texts = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    return {**texts, **{name: str(number) for name, number in numbers.items()}}


@dataclass
class Several:
    """So many forks that call `work(index)`, each with its output in a file in `folder`, and its exit code.

    None of them connects to the store before all are there: its thread in this process looks the address up, under a
    lock of the C library, and a fork of that moment would wait for that lock for ever.
    """

    folder: Path
    count: int
    work: Callable[[int], int]
    name: str

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("fork")
        self._all_are_there = context.Event()
        self.processes = [context.Process(target=self._run, args=(index,)) for index in range(self.count)]
        for process in self.processes:
            process.start()
        self._all_are_there.set()

    def _run(self, index: int) -> None:
        self._all_are_there.wait(ENDS_WITHIN_S)
        torch.set_num_threads(1)  # those of OpenMP do not survive a fork
        os.setsid()
        os.chdir(self.folder)
        said = os.open(self.place(index), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(said, number)
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w")  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w")  # type: ignore[misc]
        code = self.work(index)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def place(self, index: int) -> Path:
        """Return the file with what a process said."""
        return self.folder.parent / f"{self.name}.said.{index}"

    def said(self, index: int) -> str:
        """Return all that a process has said so far."""
        return self.place(index).read_text() if self.place(index).exists() else ""

    def all_said(self) -> str:
        """Return what all of them said, one after the other."""
        return "".join(f"[process {index}]\n{self.said(index)}" for index in range(self.count))

    def send(self, index: int, number: signal.Signals) -> None:
        """Send a signal to one of them."""
        pid = self.processes[index].pid
        assert pid is not None
        os.kill(pid, number)

    def is_running(self, index: int) -> bool:
        """Whether one of them is there still, hanging or not."""
        return self.processes[index].is_alive()

    def wait_for(self, text: str, index: int = 0) -> None:
        """Return once a process has said this; raises AssertionError where it ends or takes too long."""
        until = time.monotonic() + ENDS_WITHIN_S
        while text not in self.said(index):
            assert self.processes[index].is_alive() and time.monotonic() < until, self.all_said()
            time.sleep(0.01)

    def codes(self, hanging: int | None = None) -> list[int | None]:
        """Return the exit codes once all but one that hangs have ended; what has not in time is killed, and None."""
        until = time.monotonic() + ENDS_WITHIN_S
        for index, process in enumerate(self.processes):
            if index != hanging:
                process.join(max(0.0, until - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        for process, code in zip(self.processes, codes, strict=True):
            if code is None:
                process.kill()
                process.join()
        return codes


def training(
    folder: Path,
    arguments: Sequence[str | Path],
    count: int,
    befalls: Mapping[int, Callable[[], object]] | None = None,
    more: Mapping[int, Sequence[str]] | None = None,
    said_as: str = "",
    **environment: str,
) -> Several:
    """Start a training by so many processes in `folder`.

    `befalls` is called in the process of that number first, and `more` are words that it alone has. What they say goes
    into files beside the folder, whose names begin with `said_as` or its own.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun keeps one

    def train(index: int) -> int:
        if count > 1:
            os.environ.update(environment_of(index, count, store.port))
        os.environ.update(environment)
        (befalls or {}).get(index, lambda: None)()
        return main([*map(str, arguments), *(more or {}).get(index, ())])

    _STORES.append(store)
    return Several(folder, count, train, said_as or folder.name)


def at_step(number: int, happens: Callable[[], object], *, after: bool = True) -> Callable[[], None]:
    """Return what arranges that something happens in this process, right after its step `number`, or before it."""

    def arrange() -> None:
        from training.loop import trainer  # noqa: PLC0415

        original, seen = take_step, [0]

        def watched(*arguments: Any, **named: Any) -> Any:
            seen[0] += 1
            if not after and seen[0] == number:
                happens()
            result = original(*arguments, **named)
            if after and seen[0] == number:
                happens()
            return result

        trainer.take_step = watched  # type: ignore[attr-defined]

    return arrange


def die() -> None:
    """End this process as SIGKILL from elsewhere does."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Stop this process; it answers nobody any more."""
    os.kill(os.getpid(), signal.SIGSTOP)


def be_told_to_stop() -> None:
    """Be sent SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)
