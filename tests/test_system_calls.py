"""The recorder sees what a program does to a folder below Python, refuses what it does not know, and injects faults."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.system_calls.numbers import BY_DESCRIPTOR, BY_PATH, HARMLESS, NUMBERS
from tests.system_calls.recorder import READS, Call, Fault, UnknownCallError, trace, why_not_here

pytestmark = pytest.mark.skipif(bool(why_not_here()), reason=why_not_here() or "it can be traced here")
_libc = ctypes.CDLL(None, use_errno=True)


def _kernel(name: str, *arguments: object) -> int:
    """Make a system call that Python may not know."""
    result = _libc.syscall(NUMBERS[name], *arguments)
    assert result >= 0, f"{name}: {os.strerror(ctypes.get_errno())}"
    return int(result)


def _file(descriptor_flags: int = 0) -> int:
    return os.open("f", os.O_RDWR | os.O_CREAT | descriptor_flags)


def _append() -> None:
    os.write(_file(), b"old")
    os.pwrite(_file(os.O_APPEND), b"new", 0)  # where Linux ignores the offset: pwrite(2), BUGS


def _copy_range() -> None:
    Path("g").write_bytes(b"0123456789")
    source, target = os.open("g", os.O_RDONLY), _file()
    os.copy_file_range(source, target, 4, 2, 6)


def _copy_file() -> None:
    Path("g").write_bytes(b"copied")
    shutil.copyfile("g", "f")


def _splice() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"spliced")
    os.splice(reading, _file(), 7)


def _without_a_name() -> None:
    descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR)
    os.write(descriptor, b"named later")
    _kernel("linkat", -100, f"/proc/self/fd/{descriptor}".encode(), -100, b"f", 0x400)


def _after_deletion() -> None:
    descriptor = _file()
    Path("f").unlink()
    os.write(descriptor, b"nobody sees it")


def _by_a_thread() -> None:
    thread = threading.Thread(target=Path("f").write_bytes, args=(b"by a thread",))
    thread.start()
    thread.join()


WRITES: list[tuple[Callable[[], object], str, int, bytes]] = [
    (lambda: os.write(_file(), b"plain"), "write", 0, b"plain"),
    (lambda: os.pwrite(_file(), b"there", 7), "pwrite64", 7, b"there"),
    (lambda: os.writev(_file(), [b"two ", b"parts"]), "writev", 0, b"two parts"),
    (lambda: os.pwritev(_file(), [b"two ", b"parts"], 3, os.RWF_DSYNC), "pwritev2", 3, b"two parts"),
    (_append, "pwrite64", 3, b"new"),
    (_copy_range, "copy_file_range", 6, b"2345"),
    (_copy_file, "sendfile", 0, b"copied"),
    (_splice, "splice", 0, b"spliced"),
    (_without_a_name, "write", 0, b"named later"),
    (_after_deletion, "write", 0, b"nobody sees it"),
    (_by_a_thread, "write", 0, b"by a thread"),
    (lambda: subprocess.run("printf child > f", shell=True, check=True), "write", 0, b"child"),
]


def _calls(work: Callable[[], object], folder: Path, *faults: Fault) -> tuple[Call, ...]:
    def quietly() -> None:
        work()

    traced = trace(quietly, [folder], cwd=folder, faults=faults)
    assert traced.exit_code == 0, traced.output
    return tuple(call for call in traced.calls if call.result >= 0)


@pytest.mark.parametrize(("work", "name", "offset", "data"), WRITES)
def test_what_is_written_is_seen_whichever_call_wrote_it(
    work: Callable[[], object], name: str, offset: int, data: bytes, tmp_path: Path
) -> None:
    written = [call for call in _calls(work, tmp_path) if call.kind == "write" and call.data]
    assert (written[-1].name, written[-1].offset, written[-1].data) == (name, offset, data)


CHANGES: list[tuple[Callable[[], object], str, tuple[str, ...]]] = [
    (lambda: Path("new").mkdir(), "mkdir", ("new",)),
    (lambda: os.mkdir("new", dir_fd=os.open(".", 0)), "mkdirat", ("new",)),
    (lambda: Path("folder").rmdir(), "rmdir", ("folder",)),
    (lambda: Path("e").unlink(), "unlink", ("e",)),
    (lambda: os.unlink("e", dir_fd=os.open(".", 0)), "unlinkat", ("e",)),
    (lambda: Path("e").rename("folder/g"), "rename", ("e", "folder/g")),
    (lambda: _kernel("renameat2", -100, b"e", -100, b"g", 1), "renameat2", ("e", "g")),
    (lambda: Path("g").hardlink_to("e"), "link", ("e", "g")),
    (lambda: Path("g").symlink_to("e"), "symlink", ("g",)),
    (lambda: os.symlink("e", "g", dir_fd=os.open(".", 0)), "symlinkat", ("g",)),
    (lambda: Path("link/g").touch(), "openat", ("folder/g",)),
    (lambda: os.fsync(_file()), "fsync", ("f",)),
    (lambda: os.fdatasync(_file()), "fdatasync", ("f",)),
    (lambda: os.fsync(os.open(".", os.O_RDONLY)), "fsync", ("",)),
    (lambda: _kernel("syncfs", _file()), "syncfs", ("f",)),
    (lambda: _kernel("sync_file_range", _file(), 0, 0, 7), "sync_file_range", ("f",)),
    (lambda: os.truncate(_file(), 9), "ftruncate", ("f",)),
    (lambda: os.truncate("e", 9), "truncate", ("e",)),
    (lambda: os.posix_fallocate(_file(), 0, 9), "fallocate", ("f",)),
    (lambda: Path("e").chmod(0o600), "chmod", ("e",)),
    (lambda: os.utime("e", (1, 2)), "utimensat", ("e",)),
    (os.sync, "sync", ()),
]


@pytest.mark.parametrize(("work", "name", "paths"), CHANGES, ids=[f"{i}-{row[1]}" for i, row in enumerate(CHANGES)])
def test_every_change_is_seen_with_its_paths(
    work: Callable[[], object], name: str, paths: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "e").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    changes = [call for call in _calls(work, tmp_path) if call.name != "utimensat" or name == "utimensat"]
    assert (changes[-1].name, changes[-1].paths) == (name, tuple(str(tmp_path / path) for path in paths))


def _map_a_file() -> None:
    descriptor = _file()
    os.truncate(descriptor, 4096)
    mmap.mmap(descriptor, 4096)


@pytest.mark.parametrize(
    ("work", "named"),
    [
        (_map_a_file, "its writes cannot be seen"),
        (lambda: _kernel("io_uring_setup", 1, 0), "io_uring_setup"),
        (lambda: _libc.syscall(9999), "system call 9999"),
        (lambda: _libc.ioctl(_file(), 0x40086602, 0), "ioctl(0x40086602)"),
        (lambda: _libc.unshare(0), "unshare"),
    ],
    ids=["mapped", "io_uring", "unheard of", "ioctl", "unshare"],
)
def test_a_call_that_could_change_files_unseen_ends_the_trace(
    work: Callable[[], object], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UnknownCallError) as raised:
        _calls(work, tmp_path)
    assert named in str(raised.value)


def test_reading_maps_and_files_elsewhere_are_let_through(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()

    def work() -> None:
        outside.write_bytes(bytes(4096))
        with outside.open("r+b") as file:
            mmap.mmap(file.fileno(), 4096)[0] = 1
        (inside / "f").write_bytes(bytes(4096))
        with (inside / "f").open("rb") as file:
            assert mmap.mmap(file.fileno(), 4096, access=mmap.ACCESS_READ)[0] == 0

    traced = trace(work, [inside])
    assert traced.exit_code == 0, traced.output
    assert {call.paths for call in traced.calls} == {(str(inside / "f"),)}


def test_no_call_is_in_two_lists() -> None:
    """What is harmless is never looked at, and what is in no list is refused."""
    assert not HARMLESS & (set(BY_DESCRIPTOR) | set(BY_PATH)) and set(NUMBERS) >= HARMLESS
    assert not HARMLESS & {"io_uring_setup", "io_submit", "mount", "sync", "setsid", "open_by_handle_at"}


FAULTS = [
    (Fault("write", "f$", error=errno.ENOSPC), 0, "No space left", b""),
    (Fault("write", "f$", error=errno.EIO, after=True), 0, "Input/output error", b"1234"),
    (Fault("write", "f$", occurrence=2, error=errno.EIO), 0, "done", b"1234"),
    (Fault("write", "other", error=errno.EIO), 0, "done", b"1234"),
    (Fault("write", count=1), 0, "done", b"1234"),  # Python writes the rest
    (Fault("close", error=errno.EIO), 0, "Input/output error", b"1234"),
    (Fault("read", error=errno.EIO), 0, "Input/output error", b"1234"),
    (Fault("openat", occurrence=2, error=errno.EACCES), 0, "Permission denied", b"1234"),
    (Fault("write", kill=True), -signal.SIGKILL, "", b""),
    (Fault("write", kill=True, after=True), -signal.SIGKILL, "", b"1234"),
]


@pytest.mark.parametrize(("fault", "exit_code", "said", "left"), FAULTS)
def test_a_fault_strikes_the_call_it_is_meant_for(
    fault: Fault, exit_code: int, said: str, left: bytes, tmp_path: Path
) -> None:
    def work() -> None:
        try:
            Path("f").write_bytes(b"1234")
            assert Path("f").read_bytes()
        except OSError as error:
            sys.stdout.write(str(error))
        else:
            sys.stdout.write("done")
        sys.stdout.flush()

    traced = trace(work, [tmp_path], cwd=tmp_path, also=READS, faults=[fault])
    assert traced.exit_code == exit_code and said in traced.output, traced
    assert (tmp_path / "f").read_bytes() == left
    assert [call for call in traced.calls if call.faulty] != [] or said == "done"


def test_a_fault_strikes_where_only_calls_of_its_name_are_seen(tmp_path: Path) -> None:
    def work() -> int:
        Path("f").write_bytes(b"seen by nobody")
        try:
            Path("f").rename("g")
        except OSError as error:
            return error.errno or 0
        return 0

    fault = Fault("rename", error=errno.EIO)
    done = trace(work, [tmp_path], only=frozenset(("rename",)), faults=[fault], cwd=tmp_path)
    assert (done.exit_code, [call.name for call in done.calls]) == (errno.EIO, ["rename"])
    assert (tmp_path / "f").exists()


def test_a_command_is_traced_with_its_exit_code_and_what_it_prints(tmp_path: Path) -> None:
    program = "import sys; from utils.atomic_files import write_text_atomically as write; from pathlib import Path; "
    program += "write(Path('f'), 'atomic'); print('written'); sys.exit(7)"
    traced = trace(
        [sys.executable, "-c", program], [tmp_path], cwd=tmp_path, environment={"PYTHONPATH": str(REPOSITORY)}
    )
    assert (traced.exit_code, traced.output) == (7, "written\n")
    assert [call.kind for call in traced.calls] == ["open", "write", "fsync", "rename", "fsync"]


def test_a_program_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        trace(["sleep", "60"], [tmp_path], timeout_s=0.2)
