"""Worker processes and the channel to them: what they say, how they end, how many the system allows."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.data.channel import Channel, ChannelClosedError
from training.data.loading import Batch
from training.data.workers import Place, Worker, WorkerDiedError, end_workers

REPOSITORY = Path(__file__).parent.parent
Start = Callable[[Callable[[Any, Place], Any]], Worker]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start workers that end with the test."""
    workers: list[Worker] = []

    def start_one(work: Callable[[Any, Place], Any]) -> Worker:
        workers.append(Worker(work, workers))
        return workers[-1]

    yield start_one
    end_workers(workers)


def channels() -> tuple[Channel, Channel]:
    one, other = socket.socketpair()
    return Channel(one), Channel(other)


def test_a_batch_comes_over_as_it_was_sent_and_can_be_written_to() -> None:
    one, other = channels()
    batch = Batch(torch.randn(2, 300), torch.tensor([1, 0]), torch.tensor([7, 8]))
    one.send(batch)
    found = other.receive()
    assert torch.equal(found.waveforms, batch.waveforms) and found.waveforms.dtype == torch.float32
    assert (found.labels.tolist(), found.indices.tolist()) == ([1, 0], [7, 8])
    found.waveforms.zero_()


def test_an_end_that_is_gone_is_said_to_both_who_send_and_who_receive() -> None:
    one, other = channels()
    other.close()
    with pytest.raises(ChannelClosedError):
        one.receive()
    with pytest.raises(ChannelClosedError):
        one.send(np.zeros(10_000_000))


def test_what_the_work_raises_is_raised_where_it_was_asked_for_with_the_place_in_the_worker(start: Start) -> None:
    def fail(question: Any, place: Place) -> Any:
        raise KeyError(question)

    with pytest.raises(KeyError, match="nothing") as raised:
        start(fail).ask("nothing")
    assert "in fail" in raised.value.__notes__[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_worker_that_dies_is_told_by_how_and_where_it_was(start: Start, number: signal.Signals) -> None:
    def die(question: int, place: Place) -> None:
        place.number = question
        signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
        os.kill(os.getpid(), number)

    worker = start(die)
    with pytest.raises(WorkerDiedError, match=number.name):
        worker.ask(5)
    assert worker.place.number == 5


def test_a_worker_that_hears_nothing_is_ended_and_whoever_waits_for_it_is_let_go(start: Start) -> None:
    """One that is stopped takes no SIGTERM either, for which a program once waited without end."""
    worker = start(lambda question, _: question)
    assert worker.ask(1) == 1
    os.kill(worker._process.pid or 0, signal.SIGSTOP)
    end_workers([worker])
    assert not worker._process.is_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="the score by which Linux chooses what to kill")
def test_where_memory_runs_out_a_worker_is_killed_before_the_process_that_can_save(start: Start) -> None:
    def badness(*_: Any) -> int:
        return int(Path("/proc/self/oom_score_adj").read_text())

    assert start(badness).ask(None) == min(1000, badness() + 300)


LIMITED = """
import os, resource
from utils.open_files import room_for_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
room = room_for_open_files(30)
print(room >= 30, resource.getrlimit(resource.RLIMIT_NOFILE)[0] > {soft})
opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(room)]
"""


@pytest.mark.parametrize(
    ("soft", "hard", "printed", "reason"),
    [
        (20, 200, "True True", "the soft limit is raised as far as needed"),
        (100, 200, "True False", "there is room enough"),
        (20, 24, "False True", "raised as far as the hard limit allows, and that is said"),
    ],
)
def test_as_many_files_may_be_opened_as_are_promised(soft: int, hard: int, printed: str, reason: str) -> None:
    code = LIMITED.format(soft=soft, hard=hard)
    asked = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (asked.returncode, asked.stdout.strip()) == (0, printed), reason + asked.stderr


def test_a_worker_that_was_ended_is_known_to_have_ended_though_a_thread_waits_for_its_answer() -> None:
    others = set(multiprocessing.active_children())
    for _ in range(20):  # without care, one time in three
        worker = Worker(_echo, [])
        asking = threading.Thread(target=_ask_without_end, args=(worker,))
        asking.start()
        end_workers([worker])
        assert set(multiprocessing.active_children()) <= others
        asking.join()


def _echo(question: object, _: Place) -> object:
    return question


def _ask_without_end(worker: Worker) -> None:
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        while True:
            worker.ask(1)
