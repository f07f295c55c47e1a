"""One process writes in a run folder, and a dead one, however it died, holds nobody up. With real processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.tracing import needs_strace, traced
from training.runs.lock import RunLock
from utils.errors import UserError

HOLD = "with RunLock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.readline()"
# The parent forks a child that lives on after it, as a data loader worker may, and says the child's number.
HOLD_AND_FORK = (
    "with RunLock(Path(sys.argv[1])):\n"
    "    child = os.fork()\n"
    "    if child == 0:\n"
    "        time.sleep(60); os._exit(0)\n"
    "    print(child, flush=True); time.sleep(60)"
)


@contextmanager
def another_process(code: str, lock: Path) -> Iterator[subprocess.Popen[str]]:
    program = f"import os, sys, time\nfrom pathlib import Path\nfrom training.runs.lock import RunLock\n{code}"
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
        with pytest.raises(UserError) as raised, RunLock(lock):
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
            with pytest.raises(UserError, match=f"process {holder.pid}"), RunLock(lock):
                pass


def test_a_killed_holder_does_not_block(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with another_process(HOLD, lock) as holder:
        assert first_line(holder) == "held"
        holder.kill()
        holder.wait()
        with RunLock(lock):
            assert lock.read_text() == f"host {socket.gethostname()}, process {os.getpid()}\n"


def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with another_process(HOLD_AND_FORK, lock) as holder:
        child = int(first_line(holder))
        holder.kill()
        holder.wait()
        try:
            os.kill(child, 0)  # it lives
            with RunLock(lock):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_ends_does_not_drop_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    code = (
        "with RunLock(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child == 0: sys.exit()\n"
        "    os.waitpid(child, 0); print('held', flush=True); sys.stdin.readline()"
    )
    with another_process(code, lock) as holder:
        assert first_line(holder) == "held"
        with pytest.raises(UserError, match=f"process {holder.pid}"), RunLock(lock):
            pass


def test_the_lock_is_free_after_the_block_even_if_it_failed(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with pytest.raises(RuntimeError, match="a bug"), RunLock(lock):
        raise RuntimeError("a bug")
    with another_process(HOLD, lock) as other:
        assert first_line(other) == "held"


def test_only_the_last_holder_is_named(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.write_text("host elsewhere-with-a-long-name, process 1234567\n")
    with RunLock(lock):
        assert lock.read_text() == f"host {socket.gethostname()}, process {os.getpid()}\n"


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[RunLock]:
    """The lock of a run folder, held by this process."""
    (tmp_path / "run").mkdir()
    with RunLock(tmp_path / "run" / ".lock") as held:
        yield held


def is_locked(path: Path) -> bool:
    """Whether another process is refused."""
    with another_process(HOLD, path) as other:
        return first_line(other) != "held"


def test_a_lock_that_is_where_it_was_is_left_alone_and_there_is_nothing_to_tell(lock: RunLock, tmp_path: Path) -> None:
    before = (tmp_path / "run" / ".lock").stat()
    assert lock.ensure() is None
    assert (tmp_path / "run" / ".lock").stat() == before


@pytest.mark.parametrize("what", ["the folder", "the lock alone"])
def test_a_folder_that_was_removed_is_made_and_locked_again_and_that_is_to_be_told_once(
    what: str, lock: RunLock, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "run") if what == "the folder" else (tmp_path / "run" / ".lock").unlink()
    told = [lock.ensure() for _ in range(2)]
    assert told[0] and told[0].startswith(f"{tmp_path / 'run'} was removed, replaced or unmounted")
    assert told[1] is None
    assert is_locked(tmp_path / "run" / ".lock")


def test_a_folder_that_was_renamed_and_put_back_is_still_held(lock: RunLock, tmp_path: Path) -> None:
    (tmp_path / "run").rename(tmp_path / "away")
    (tmp_path / "away").rename(tmp_path / "run")
    lock.ensure()
    assert is_locked(tmp_path / "run" / ".lock")


def test_a_copy_of_the_folder_in_its_place_is_locked_without_a_word(lock: RunLock, tmp_path: Path) -> None:
    """Its lock file names this process: nobody else has trained there."""
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "copy").rename(tmp_path / "run")
    assert lock.ensure() is None
    assert is_locked(tmp_path / "run" / ".lock")


def test_a_folder_that_another_process_has_made_again_and_holds_is_refused_until_it_is_gone(
    lock: RunLock, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").mkdir()
    with another_process(HOLD, tmp_path / "run" / ".lock") as other:
        assert first_line(other) == "held"
        for _ in range(2):
            with pytest.raises(UserError, match=rf"another process trains in .*/run \(host .*, process {other.pid}\)"):
                lock.ensure()
    with pytest.raises(UserError, match=rf"another one \(host .*, process {other.pid}\) has trained there since: move"):
        lock.ensure()
    (tmp_path / "run").rename(tmp_path / "moved_away")
    lock.ensure()
    assert is_locked(tmp_path / "run" / ".lock")


def test_a_place_where_the_folder_cannot_be_made_again_is_an_error_and_the_next_try_may_succeed(
    lock: RunLock, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match="exists"):
        lock.ensure()
    (tmp_path / "run").unlink()
    lock.ensure()
    assert is_locked(tmp_path / "run" / ".lock")


@needs_strace
@pytest.mark.parametrize("refusal", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL"])
def test_a_file_system_that_cannot_lock_is_said_once_and_is_no_obstacle(tmp_path: Path, refusal: str) -> None:
    code = (
        "import sys, pathlib\nfrom training.runs.lock import RunLock\n"
        "with RunLock(pathlib.Path(sys.argv[1])) as lock: lock.ensure(); lock.ensure()"
    )
    inject = ["-o", "/dev/null", "-P", str(tmp_path / ".lock"), "-e", f"inject=fcntl:error={refusal}"]
    done = traced(inject, [sys.executable, "-c", code, str(tmp_path / ".lock")], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith(f"[NOTE] {tmp_path}: the file system cannot lock files (")
    assert "so a second process in this run folder would not be noticed" in done.stdout
    assert (tmp_path / ".lock").read_text().startswith(f"host {socket.gethostname()}, process ")


@needs_strace
def test_a_lock_that_a_broken_server_refuses_is_an_error(tmp_path: Path) -> None:
    inject = ["-o", "/dev/null", "-P", str(tmp_path / ".lock"), "-e", "inject=fcntl:error=EIO"]
    code = "import sys, pathlib\nfrom training.runs.lock import RunLock\nRunLock(pathlib.Path(sys.argv[1])).__enter__()"
    done = traced(inject, [sys.executable, "-c", code, str(tmp_path / ".lock")], tmp_path)
    assert "OSError: [Errno 5] Input/output error" in done.stderr
