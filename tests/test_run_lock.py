"""One process writes in a run folder, and a dead one, however it died, holds nobody up. With real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from training.runs.lock import run_lock
from utils.errors import UserError

HOLD = "with run_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.readline()"
# The parent forks a child that lives on after it, as a data loader worker may, and says the child's number.
HOLD_AND_FORK = (
    "with run_lock(Path(sys.argv[1])):\n"
    "    child = os.fork()\n"
    "    if child == 0:\n"
    "        time.sleep(60); os._exit(0)\n"
    "    print(child, flush=True); time.sleep(60)"
)


@contextmanager
def another_process(code: str, lock: Path) -> Iterator[subprocess.Popen[str]]:
    program = f"import os, sys, time\nfrom pathlib import Path\nfrom training.runs.lock import run_lock\n{code}"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(lock)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with another_process(HOLD, lock) as holder:
        assert first_line(holder) == "held"
        with pytest.raises(UserError) as raised, run_lock(lock):
            pass
    said = str(raised.value)
    assert f"another process trains in {tmp_path} (host {socket.gethostname()}, process {holder.pid})" in said
    assert "--comment" in said


def test_being_refused_leaves_the_holder_its_lock_and_its_name(tmp_path: Path) -> None:
    """Closing any file of a POSIX lock drops it in the process that closes, and only there."""
    lock = tmp_path / ".lock"
    with another_process(HOLD, lock) as holder:
        assert first_line(holder) == "held"
        for _ in range(2):
            with pytest.raises(UserError, match=f"process {holder.pid}"), run_lock(lock):
                pass


def test_a_killed_holder_does_not_block(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with another_process(HOLD, lock) as holder:
        assert first_line(holder) == "held"
        holder.kill()
        holder.wait()
        with run_lock(lock):
            assert lock.read_text() == f"host {socket.gethostname()}, process {os.getpid()}\n"


def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with another_process(HOLD_AND_FORK, lock) as holder:
        child = int(first_line(holder))
        holder.kill()
        holder.wait()
        try:
            os.kill(child, 0)  # it lives
            with run_lock(lock):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_ends_does_not_drop_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    code = (
        "with run_lock(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child == 0: sys.exit()\n"
        "    os.waitpid(child, 0); print('held', flush=True); sys.stdin.readline()"
    )
    with another_process(code, lock) as holder:
        assert first_line(holder) == "held"
        with pytest.raises(UserError, match=f"process {holder.pid}"), run_lock(lock):
            pass


def test_the_lock_is_free_after_the_block_even_if_it_failed(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with pytest.raises(RuntimeError, match="a bug"), run_lock(lock):
        raise RuntimeError("a bug")
    with another_process(HOLD, lock) as other:
        assert first_line(other) == "held"


def test_only_the_last_holder_is_named(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.write_text("host elsewhere-with-a-long-name, process 1234567\n")
    with run_lock(lock):
        assert lock.read_text() == f"host {socket.gethostname()}, process {os.getpid()}\n"
