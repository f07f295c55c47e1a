"""Waits: a stop and Ctrl-C end them, they say what they wait for, and nothing that never ends keeps the process."""

from __future__ import annotations

import concurrent.futures
import errno
import operator
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from utils import waiting
from utils.interruption import StopRequest
from utils.memory_shortage import memory_shortage
from utils.waiting import Helpers, StopAskedError, each_awaited, wait_for

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def never() -> Iterator[Future[None]]:
    """What a helper waits for as it would for a dead mount."""
    dead, helpers = threading.Event(), Helpers(1, "test")

    def wait_until_it_is_mended(_: int) -> None:
        dead.wait()

    yield helpers.do(wait_until_it_is_mended)
    dead.set()
    helpers.close()


def words() -> str:
    return "data: reading a.flac"


def test_the_result_is_what_the_work_returns_and_its_error_is_raised_where_it_is_awaited() -> None:
    helpers = Helpers(1, "test")
    assert wait_for(helpers.do(lambda number: f"helper {number}"), words) == "helper 0"
    with pytest.raises(FileNotFoundError, match="gone"):
        wait_for(helpers.do(lambda _: Path("gone").read_bytes()), words)
    helpers.close()


def test_a_stop_ends_the_wait_for_what_never_comes(never: Future[None]) -> None:
    stop = StopRequest()
    threading.Timer(0.05, lambda: setattr(stop, "signal", signal.SIGTERM)).start()
    with pytest.raises(StopAskedError):
        wait_for(never, words, stop)


def test_ctrl_c_ends_the_wait_for_what_never_comes(never: Future[None]) -> None:
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        wait_for(never, words)


def test_a_result_that_is_there_is_taken_although_a_stop_was_asked_for() -> None:
    stop, helpers = StopRequest(), Helpers(1, "test")
    stop.signal = signal.SIGTERM
    there = helpers.do(lambda _: 1)
    concurrent.futures.wait([there])
    assert wait_for(there, words, stop) == 1
    helpers.close()


def test_a_long_wait_says_what_it_waits_for_ever_more_rarely_and_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "FIRST_TOLD_S", 0.05)
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 0.005)
    helpers, told, is_there = Helpers(1, "test"), [], threading.Event()
    began = time.monotonic()

    def told_four_times() -> str:
        told.append(time.monotonic() - began)
        if len(told) >= 4:
            is_there.set()
        return words()

    wait_for(helpers.do(lambda _: is_there.wait()), told_four_times)
    helpers.close()
    said = capsys.readouterr().err.splitlines()
    assert all(re.fullmatch(r"\[NOTE\] Waiting for \d+ s for data: reading a.flac", line) for line in said[:-1])
    assert all(map(operator.ge, told, (0.05, 0.1, 0.2, 0.4))), "not before"
    assert len(said) == len(told) + 1 and said[-1].startswith("[NOTE] That took ")


def test_a_short_wait_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(each_awaited(iter("abc"), words)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def ended(code: str) -> subprocess.CompletedProcess[str]:
    preamble = "import ctypes, os, signal, threading, time\nfrom utils import ending\n"
    preamble += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", preamble + code]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)


# The main thread hears of no signal, as in a system call that waits for a dead disk; another thread takes them.
DEAF = """
ending._AT_ONCE_WITHIN_S = 0.1
ending.insist_on_stop()
def press():
    for _ in range({times}):
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
{before}
ctypes.CDLL(None).sleep({seconds})
os._exit(7)
"""
REQUEST = "signal.signal(signal.SIGINT, lambda *_: None)  # as while training: it asks to finish the step"


@pytest.mark.parametrize(
    ("times", "before", "seconds", "code", "reason"),
    [
        (1, "", 50, 130, "nothing but Python's own handler: at once"),
        (1, REQUEST, 1, 7, "a request, for which the step may take its time"),
        (2, REQUEST, 50, 130, "the second one: at once"),
    ],
)
def test_ctrl_c_that_means_at_once_ends_a_process_whose_main_thread_does_not_hear_it(
    times: int, before: str, seconds: int, code: int, reason: str
) -> None:
    assert ended(DEAF.format(times=times, before=before, seconds=seconds)).returncode == code, reason


def test_a_process_that_was_stopped_leaves_although_a_thread_never_ends() -> None:
    code = "threading.Thread(target=lambda: time.sleep(60)).start()\nprint('all', end='')\nending.leave_now(143)"
    stopped = ended(code)
    assert (stopped.returncode, stopped.stdout) == (143, "all")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "memory ran out"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "memory ran out"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ""),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            "memory ran out (9 bytes more were asked for)",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 80 GiB"),
            "the memory of the GPU ran out (2.00 GiB more were asked for)",
        ),
        (RuntimeError("can't start new thread"), "the system refuses another thread"),
        (RuntimeError("could not create a primitive"), "memory ran out"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "memory ran out"),
        (RuntimeError("The size of tensor a (2) must match the size of tensor b (3)"), ""),
        (ValueError("out of memory"), ""),
    ],
)
def test_every_way_of_saying_that_memory_ran_out_is_known(error: Exception, told: str) -> None:
    found = memory_shortage(error)
    assert found.startswith(told) and bool(found) == bool(told)


def test_a_shortage_behind_another_error_is_seen() -> None:
    error = RuntimeError("a checkpoint could not be saved")
    error.__cause__ = MemoryError()
    assert memory_shortage(error) == "memory ran out"
