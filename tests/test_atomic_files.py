"""The guarantees of utils/atomic_files.py, each with a real kill, a real size limit or a real refusal of the kernel."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faulty_calls import needs_compiler, run_code, where_it_fails
from utils import atomic_files
from utils.atomic_files import (
    TEMPORARY_PREFIX,
    Placement,
    atomic_write,
    disk_error_behind,
    link_or_copy,
    remove_stray_temporaries,
    temporaries_in,
    write_text_atomically,
)

REPOSITORY = Path(__file__).resolve().parent.parent
STRACE = shutil.which("strace")
# A trial run: strace can be installed and still be forbidden, as in many containers.
STRACE_WORKS = STRACE is not None and subprocess.run([STRACE, "true"], capture_output=True, check=False).returncode == 0
needs_strace = pytest.mark.skipif(not STRACE_WORKS, reason="needs strace, and leave to trace a child process")


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def run_child(code: str, *arguments: str | Path, traced: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `code` after the imports it needs, below `strace` with the arguments `traced` where there are any."""
    tracer = [STRACE, *traced] if STRACE and traced else []
    program = f"import os, sys\nfrom pathlib import Path\nfrom utils.atomic_files import *\n{code}"
    command = [*tracer, sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)


def test_the_new_content_replaces_the_old_and_no_temporary_stays(tmp_path: Path) -> None:
    target = tmp_path / "best.pth"
    target.write_bytes(b"old and longer")
    with atomic_write(target) as file:
        file.write(b"new")
        assert target.read_bytes() == b"old and longer"
    assert target.read_bytes() == b"new"
    assert names_in(tmp_path) == ["best.pth"]


def test_the_block_can_read_back_what_it_wrote(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "best.pth") as file:
        file.write(b"bona fide")
        file.seek(5)
        assert file.read() == b"fide"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_an_exception_while_writing_leaves_the_old_file_and_no_temporary(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "best.pth"
    target.write_bytes(b"old")
    with pytest.raises(type(error)) as raised, atomic_write(target) as file:
        file.write(b"half of the n")
        raise error
    assert raised.value is error
    assert target.read_bytes() == b"old"
    assert names_in(tmp_path) == ["best.pth"]


def test_a_process_killed_while_writing_leaves_the_old_file_whole(tmp_path: Path) -> None:
    target = tmp_path / "best.pth"
    target.write_bytes(b"old")
    child = run_child(
        "with atomic_write(Path(sys.argv[1])) as file:\n"
        "    file.write(bytes(100_000)); file.flush()\n"
        "    os.kill(os.getpid(), 9)",
        target,
    )
    assert child.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    assert len(names_in(tmp_path)) == 2, "the killed process should have left its temporary"
    assert remove_stray_temporaries(tmp_path)[0].startswith(f"{TEMPORARY_PREFIX}best.pth-")
    assert names_in(tmp_path) == ["best.pth"]


@needs_strace
def test_a_process_killed_between_fsync_and_rename_leaves_the_old_file_whole(tmp_path: Path) -> None:
    target = tmp_path / "best.pth"
    target.write_bytes(b"old")
    kill_at_rename = ("-e", "trace=/^rename", "-e", "inject=/^rename:signal=KILL:error=EINTR")
    child = run_child("write_text_atomically(Path(sys.argv[1]), 'new')", target, traced=kill_at_rename)
    assert child.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}, child.stderr
    assert target.read_bytes() == b"old"


@needs_strace
def test_the_file_is_synced_before_the_rename_and_the_folder_after_it(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    traced = ("-y", "-o", str(trace), "-e", "trace=write,fsync,/^rename")
    child = run_child("write_text_atomically(Path(sys.argv[1]), 'new')", tmp_path / "best.pth", traced=traced)
    assert child.returncode == 0, child.stderr
    temporary = re.escape(str(tmp_path / TEMPORARY_PREFIX)) + r"best\.pth-\d+-[0-9a-f]+"
    steps = [
        rf"write\(\d+<{temporary}>",
        rf"fsync\(\d+<{temporary}>\)",
        rf'rename\w*\(.*"{temporary}", .*"{re.escape(str(tmp_path))}/best\.pth"',  # renameat on ARM
        rf"fsync\(\d+<{re.escape(str(tmp_path))}>\)",
    ]
    calls = [line for line in trace.read_text().splitlines() if str(tmp_path) in line]
    assert len(calls) == len(steps), calls
    assert all(re.match(step, call) for step, call in zip(steps, calls, strict=True)), calls


@needs_strace
def test_a_failed_fsync_is_raised_and_never_repeated(tmp_path: Path) -> None:
    target, trace = tmp_path / "best.pth", tmp_path / "trace"
    target.write_bytes(b"old")
    traced = ("-o", str(trace), "-e", "trace=fsync", "-e", "inject=fsync:error=EIO")
    child = run_child("write_text_atomically(Path(sys.argv[1]), 'new')", target, traced=traced)
    assert "OSError: [Errno 5] Input/output error" in child.stderr
    assert trace.read_text().count("fsync(") == 1
    assert target.read_bytes() == b"old"
    assert names_in(tmp_path) == ["best.pth", "trace"]


@needs_strace
def test_a_file_system_without_fsync_of_folders_is_no_failure(tmp_path: Path) -> None:
    traced = ("-e", "trace=fsync", "-e", "inject=fsync:error=EINVAL:when=2")
    child = run_child("write_text_atomically(Path(sys.argv[1]), 'new')", tmp_path / "best.pth", traced=traced)
    assert child.returncode == 0, child.stderr
    assert "(INJECTED)" in child.stderr


def test_a_full_disk_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "best.pth"
    target.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as raised, atomic_write(target) as file:
            file.write(bytes(1001))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
    assert target.read_bytes() == b"old"
    assert names_in(tmp_path) == ["best.pth"]


def test_ctrl_c_on_a_full_disk_is_still_ctrl_c(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "best.pth") as file:
            file.write(bytes(1001))  # kept in the buffer until the file is closed
            raise KeyboardInterrupt
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(tmp_path) == []


def test_the_full_disk_behind_an_error_of_torch_save_is_found(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(RuntimeError) as raised, atomic_write(tmp_path / "last.pth") as file:
            torch.save({"weight": torch.zeros(100_000)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    behind = disk_error_behind(raised.value)
    assert behind is not None
    assert behind.errno == errno.EFBIG
    assert names_in(tmp_path) == []


def test_no_disk_error_is_found_behind_a_bug_even_if_its_causes_run_in_a_circle() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__context__ = second, first
    assert disk_error_behind(first) is None


def test_a_missing_folder_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "no_such_run" / "best.pth"):
        pass
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_a_new_file_follows_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_text_atomically(tmp_path / "record.json", "{}")
    finally:
        os.umask(before)
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == mode


def test_a_symbolic_link_is_replaced_and_what_it_points_to_is_kept(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "best.pth").symlink_to("elsewhere")
    write_text_atomically(tmp_path / "best.pth", "new")
    assert (tmp_path / "elsewhere").read_text() == "kept"
    assert not (tmp_path / "best.pth").is_symlink()


def test_text_is_written_as_utf_8_with_its_newlines_as_given(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "history.csv", "epoch,é\r\n1,2\n")
    assert (tmp_path / "history.csv").read_bytes() == b"epoch,\xc3\xa9\r\n1,2\n"


def test_a_link_shares_the_bytes_with_its_source_and_replaces_the_target(tmp_path: Path) -> None:
    source, target = tmp_path / "checkpoint_epoch_2.pth", tmp_path / "best.pth"
    source.write_bytes(b"epoch 2")
    target.write_bytes(b"epoch 1")
    assert link_or_copy(source, target) is Placement.LINKED
    assert source.samefile(target)
    assert names_in(tmp_path) == ["best.pth", "checkpoint_epoch_2.pth"]


def test_a_link_over_a_name_of_the_same_file_leaves_no_temporary(tmp_path: Path) -> None:
    source, target = tmp_path / "checkpoint_epoch_2.pth", tmp_path / "best.pth"
    source.write_bytes(b"epoch 2")
    assert [link_or_copy(source, target) for _ in range(2)] == [Placement.LINKED] * 2
    assert names_in(tmp_path) == ["best.pth", "checkpoint_epoch_2.pth"]


def test_a_symbolic_link_to_the_source_becomes_a_real_second_name(tmp_path: Path) -> None:
    source, target = tmp_path / "checkpoint_epoch_2.pth", tmp_path / "best.pth"
    source.write_bytes(b"epoch 2")
    target.symlink_to(source.name)
    link_or_copy(source, target)
    source.unlink()
    assert target.read_bytes() == b"epoch 2"


def test_a_source_that_is_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_epoch_2.pth").write_bytes(b"epoch 2")
    (tmp_path / "last.pth").symlink_to("checkpoint_epoch_2.pth")
    link_or_copy(tmp_path / "last.pth", tmp_path / "best.pth")
    assert not (tmp_path / "best.pth").is_symlink()
    assert (tmp_path / "best.pth").samefile(tmp_path / "checkpoint_epoch_2.pth")


def test_a_source_on_another_file_system_is_copied(tmp_path: Path) -> None:
    source, target = Path("/proc/version"), tmp_path / "best.pth"
    if not source.exists():
        pytest.skip("needs /proc, a file system of its own")
    target.write_bytes(b"old")
    assert link_or_copy(source, target) is Placement.COPIED
    assert target.read_bytes() == source.read_bytes()
    assert names_in(tmp_path) == ["best.pth"]


@needs_strace
@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        ("EPERM", "Placement.COPIED"),  # FAT and some network shares
        ("EOPNOTSUPP", "Placement.COPIED"),  # 9p
        ("EMLINK", "Placement.COPIED"),  # ext4 with 65,000 names of one file
        ("EIO", "Input/output error"),  # a broken disk: copying would only hide it
        ("ENOSPC", "No space left on device"),
    ],
)
def test_only_a_refusal_of_links_leads_to_a_copy(tmp_path: Path, refusal: str, outcome: str) -> None:
    source, target = tmp_path / "checkpoint_epoch_2.pth", tmp_path / "best.pth"
    source.write_bytes(b"epoch 2")
    traced = ("-o", "/dev/null", "-e", "trace=/^link", "-e", f"inject=/^link:error={refusal}")
    child = run_child("print(link_or_copy(Path(sys.argv[1]), Path(sys.argv[2])))", source, target, traced=traced)
    assert outcome in child.stdout + child.stderr
    assert target.exists() == (outcome == "Placement.COPIED")
    assert names_in(tmp_path)[-1] == "checkpoint_epoch_2.pth"
    assert not any(name.startswith(TEMPORARY_PREFIX) for name in names_in(tmp_path))


@needs_compiler
def test_a_disk_that_says_at_the_close_that_it_is_full_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "best.pth").write_text("old")
    code = "from pathlib import Path\nfrom utils.atomic_files import *\nwrite_text_atomically(Path('best.pth'), 'new')"
    done = run_code(code, tmp_path, where_it_fails("close", "/.tmp-best.pth", errno.EDQUOT))
    assert "OSError: [Errno 122] Disk quota exceeded" in done.stderr
    assert (names_in(tmp_path), (tmp_path / "best.pth").read_text()) == (["best.pth"], "old")


WRITES = (
    "import os, sys, time\nfrom pathlib import Path\nfrom utils.atomic_files import atomic_write\n"
    "with atomic_write(Path(sys.argv[1])) as file:\n"
    "    if os.fork() == 0: time.sleep(60); os._exit(0)\n"
    "    print('writes', flush=True); sys.stdin.readline()\n"
)


def test_what_a_living_process_is_writing_stays_and_goes_once_it_was_killed(tmp_path: Path) -> None:
    """Also where a child lives on, as a worker of the data loader may for some seconds."""
    command = [sys.executable, "-c", WRITES, str(tmp_path / "scores.txt")]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as writer:
        try:
            assert writer.stdout is not None and writer.stdout.readline() == "writes\n"
            assert remove_stray_temporaries(tmp_path) == []
            (left,) = temporaries_in(tmp_path)
            writer.kill()
            writer.wait()
            assert remove_stray_temporaries(tmp_path, of="scores") == []
            assert remove_stray_temporaries(tmp_path, of="scores.txt") == [left]
        finally:
            os.killpg(writer.pid, signal.SIGKILL)
    assert names_in(tmp_path) == []


def test_only_files_with_the_temporary_prefix_are_removed(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY_PREFIX}folder").mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}link").symlink_to("best.pth")
    strays = [f"{TEMPORARY_PREFIX}best.pth-1-00ff00ff", f"{TEMPORARY_PREFIX}record.json-77"]
    for name in ["best.pth", ".tmpfile", "x.tmp-1", ".lock", *strays]:
        (tmp_path / name).write_text("x")
    assert remove_stray_temporaries(tmp_path) == strays
    assert names_in(tmp_path) == [".lock", ".tmp-folder", ".tmp-link", ".tmpfile", "best.pth", "x.tmp-1"]


def test_a_stray_link_is_removed_and_the_file_it_named_is_whole(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_epoch_2.pth").write_bytes(b"epoch 2")
    (tmp_path / f"{TEMPORARY_PREFIX}best.pth-1-00ff00ff").hardlink_to(tmp_path / "checkpoint_epoch_2.pth")
    write_text_atomically(tmp_path / "best.pth", "new")
    remove_stray_temporaries(tmp_path)
    assert (tmp_path / "checkpoint_epoch_2.pth").read_bytes() == b"epoch 2"


def test_a_folder_that_does_not_exist_has_no_strays(tmp_path: Path) -> None:
    assert remove_stray_temporaries(tmp_path / "no_such_run") == []


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = re.findall(r"`(test_\w+)`", atomic_files.__doc__ or "")
    assert len(named) >= 9
    assert [name for name in named if name not in globals()] == []
