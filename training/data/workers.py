"""Worker processes that answer one question after the other, each over a socket of its own, and that nobody waits for.

Workers ignore the Ctrl-C, SIGTERM and SIGUSR1 that a terminal or a scheduler sends to the whole group, since the main
process decides when to stop and save, and die with it. The main process ends them by SIGKILL: they hold nothing, and
one that waits for a dead mount hears nothing else. Even that one may not hear, so `join` gives up after a second.
Where memory runs out, Linux is told to take a worker rather than the main process, which can still save.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from training.data.channel import Channel, ChannelClosedError

if sys.platform == "linux":
    from multiprocessing.context import ForkProcess as _Process
else:  # where libraries of the system cannot be used after a fork
    from multiprocessing.context import SpawnProcess as _Process

OPEN_FILES_OF_A_WORKER = 3
"""In the main process: a socket, and two ends of pipes by which multiprocessing sees it end."""
_END_WITHIN_S = 1.0
_PR_SET_PDEATHSIG = 1
_SOONER_KILLED = 300  # of 1000, added to the badness by which Linux chooses what to kill
_NUMBER = struct.Struct("q")
_NOTHING = -1


class WorkerDiedError(Exception):
    """A worker ended without an answer; the text says how."""


class Place:
    """Where a worker is in its work, as a number that its parent sees too, whatever the worker waits for.

    Memory without a name, which no size of /dev/shm limits. A worker that was not forked has one of its own, and its
    parent sees nothing.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _NUMBER.size)
        self.number = None

    def __reduce__(self) -> tuple[type[Place], tuple[()]]:
        return Place, ()

    @property
    def number(self) -> int | None:
        """The number that was set last, None for none."""
        found: int = _NUMBER.unpack_from(self._shared)[0]
        return None if found == _NOTHING else found

    @number.setter
    def number(self, number: int | None) -> None:
        _NUMBER.pack_into(self._shared, 0, _NOTHING if number is None else number)


class Worker:
    """A process that calls `work(question, place)` for each question, until it is ended or the main process dies."""

    def __init__(self, work: Callable[[Any, Place], Any], older: Sequence[Worker]) -> None:
        """Start it; raises OSError where the system refuses a process or a descriptor. `older` workers live already."""
        own, its = socket.socketpair()
        self.place = Place()
        self._channel = Channel(own)
        self._waiting = threading.Lock()
        # A forked process inherits the ends of the main process; while it had them, no worker would see that one die.
        not_its = [worker._channel for worker in (*older, self)] if sys.platform == "linux" else []
        try:
            self._process = _WorkerProcess(
                target=_answer, args=(os.getpid(), work, self.place, Channel(its), not_its), daemon=True
            )
            with _signals_held():
                self._process.start()
        except BaseException:
            own.close()
            raise
        finally:
            its.close()

    def ask(self, question: object) -> Any:
        """Return the answer when it is there, or raise what the work raised; raises WorkerDiedError."""
        try:
            self._channel.send(question)
            answer = self._channel.receive()
        except ChannelClosedError as error:
            with self._waiting:
                how = self._process.how_it_ended()
            raise WorkerDiedError(how) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self) -> None:
        """Tell it to end, and let go of whoever waits for its answer; returns at once."""
        self._process.kill()
        self._channel.shut()

    def join(self, timeout_s: float) -> None:
        """Return when it has ended, or has not in this time.

        Of two threads that ask the system for the same ended process, one is told that there is none, and would go on
        as if it still ran: they ask one after the other.
        """
        with self._waiting:
            self._process.join(timeout_s)


def end_workers(workers: Sequence[Worker]) -> None:
    """End them all; what waits for a dead mount is left to the system after a second."""
    for worker in workers:
        worker.kill()
    until = time.monotonic() + _END_WITHIN_S
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))


class _WorkerProcess(_Process):
    """A process that is joined without waiting for ever, by multiprocessing at the end of the program too."""

    def join(self, timeout: float | None = None) -> None:
        self.kill()
        super().join(_END_WITHIN_S if timeout is None else timeout)

    def how_it_ended(self) -> str:
        """Return in words how it ended, of its own accord."""
        super().join(_END_WITHIN_S)
        code = self.exitcode
        if code is None:
            return "it does not answer"
        if code == -signal.SIGKILL:
            return "killed by SIGKILL, most likely for want of memory"
        return f"by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back what is sent to the group while a worker starts: it inherits the mask and sees no default action."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(
    parent: int, work: Callable[[Any, Place], Any], place: Place, channel: Channel, not_its: Sequence[Channel]
) -> None:
    """Answer questions until the other end is gone. What the work raises is the answer, with where it was raised."""
    _prepare_worker(parent)
    for other in not_its:
        other.close()
    while True:
        try:
            question = channel.receive()
            try:
                answer = work(question, place)
            except Exception as error:  # noqa: BLE001  (raised again in the main process)
                error.add_note(f"in a worker process:\n{traceback.format_exc()}")
                answer = error
            place.number = None
            channel.send(answer)
            del question, answer
        except ChannelClosedError:
            os._exit(0)


def _prepare_worker(parent: int) -> None:
    """Ignore what stops the main process, compute in one thread, die with the parent and before it (Linux).

    What the parent had stays its own: a garbage collection would write to each of its objects, and so copy them all.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    gc.freeze()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before this line, and no signal will ever come
            os._exit(0)
        badness = Path("/proc/self/oom_score_adj")
        with suppress(OSError, ValueError):
            badness.write_text(str(min(1000, int(badness.read_text()) + _SOONER_KILLED)))
