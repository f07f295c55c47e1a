"""A file that is written past the page cache, or through it where that cannot be: the same bytes, and every error."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from utils import direct_io, streamed_file
from utils.streamed_file import StreamedFile

BLOCK, BUFFER = 4096, 8192
SIZES = [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER, 7 * BUFFER + 5 * 512 + 3, 20 * BUFFER]


class Disk:
    """Counts what is asked of the disk, and answers some of it with an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.direct: list[int] = []
        self.through_the_cache: list[int] = []
        self.early = 0
        self.refuse: Callable[[bool, int], int] = lambda direct, number: 0
        self._pwrite, self._fadvise = os.pwrite, os.posix_fadvise
        monkeypatch.setattr(streamed_file, "BUFFER_BYTES", BUFFER)
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(os, "posix_fadvise", self.fadvise)

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        is_direct = bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)
        made = self.direct if is_direct else self.through_the_cache
        if error := self.refuse(is_direct, len(self.direct) + len(self.through_the_cache)):
            raise OSError(error, os.strerror(error))
        written = self._pwrite(descriptor, data, offset)
        made.append(written)
        return written

    def fadvise(self, *arguments: Any) -> None:
        self.early += 1
        self._fadvise(*arguments)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture(params=["here", "in memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on the disk of the tests, and one on tmpfs."""
    if request.param == "here":
        yield tmp_path
        return
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("needs /dev/shm")
    path = Path("/dev/shm", f"streamed-{os.getpid()}")
    path.mkdir()
    try:
        yield path
    finally:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()


def write(path: Path, content: bytes, check: Callable[[], None] = lambda: None) -> None:
    """Write in parts of all sizes."""
    draw, at = random.Random(len(content)), 0
    with path.open("x+b") as file, StreamedFile(file, check) as streamed:
        while at < len(content):
            part = content[at : at + draw.choice([1, 30, 4096, 5 * BUFFER])]
            assert streamed.write(memoryview(part)) == len(part)
            at += len(part)
        streamed.flush()
        assert path.read_bytes() == content, "all of it is with the kernel before the file is closed"


def no_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse O_DIRECT when it is asked for, as file systems without it do."""
    real = fcntl.fcntl

    def refused(descriptor: int, command: int, value: int = 0) -> int:
        if command == fcntl.F_SETFL and value & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor, command, value)

    monkeypatch.setattr(fcntl, "fcntl", refused)


def no_thread_at_first(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system refuse the first thread, as at a limit of processes, and have one again when the next is asked."""
    real, asked = threading.Thread.start, iter(range(1000))

    def start(thread: threading.Thread) -> None:
        if next(asked) == 0:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


FALLBACKS: dict[str, Callable[[Disk, pytest.MonkeyPatch], None]] = {
    "O_DIRECT": lambda disk, patch: None,
    "none in this file system": lambda disk, patch: no_flag(patch),
    "none in this system": lambda disk, patch: patch.setattr(direct_io, "_O_DIRECT", 0),
    "refused at the first write": lambda disk, patch: setattr(
        disk, "refuse", lambda direct, number: errno.EINVAL if direct else 0
    ),
    "refused in the middle": lambda disk, patch: setattr(
        disk, "refuse", lambda direct, number: errno.EINVAL if direct and number == 2 else 0
    ),
    "no thread any more": lambda disk, patch: patch.setattr(
        ThreadPoolExecutor, "submit", lambda *arguments: (_ for _ in ()).throw(RuntimeError("it ends"))
    ),
    "no thread at first": no_thread_at_first,
}


@pytest.mark.parametrize("way", FALLBACKS)
@pytest.mark.parametrize("size", SIZES)
def test_a_file_has_the_bytes_that_were_written(
    folder: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, way: str, size: int
) -> None:
    FALLBACKS[way](disk, monkeypatch)
    content = random.Random(size).randbytes(size)
    write(folder / "file", content)
    assert (folder / "file").read_bytes() == content


def test_all_but_the_last_bytes_of_a_large_file_go_past_the_page_cache(tmp_path: Path, disk: Disk) -> None:
    write(tmp_path / "file", bytes(3 * BUFFER + BLOCK + 7))
    assert disk.direct == [BUFFER, BUFFER, BUFFER, BLOCK] and disk.through_the_cache == [7]


def test_a_small_file_is_written_at_once_and_like_any_other(tmp_path: Path, disk: Disk) -> None:
    write(tmp_path / "file", bytes(BUFFER - 1))
    assert (disk.direct, disk.through_the_cache, disk.early) == ([], [BUFFER - 1], 0)


def test_where_o_direct_is_refused_in_the_middle_the_rest_goes_through_the_cache_and_on_to_the_disk_at_once(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    FALLBACKS["refused in the middle"](disk, monkeypatch)
    write(tmp_path / "file", bytes(5 * BUFFER))
    assert disk.direct == [BUFFER, BUFFER] and disk.through_the_cache == [BUFFER, BUFFER, BUFFER]
    assert disk.early == 3


def test_a_write_that_takes_a_part_only_is_gone_on_with(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With O_DIRECT the next place may be none that it takes: the rest goes through the cache."""
    whole = disk._pwrite
    monkeypatch.setattr(disk, "_pwrite", lambda descriptor, data, at: whole(descriptor, data[: 512 * 3 + 1], at))
    content = random.Random(1).randbytes(4 * BUFFER + 11)
    write(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=os.strerror)
@pytest.mark.parametrize("at", [0, 1, 4])
def test_an_error_of_the_disk_is_raised_and_nothing_is_written_after_it(
    tmp_path: Path, disk: Disk, at: int, error: int
) -> None:
    disk.refuse = lambda direct, number: error if number == at else 0
    with pytest.raises(OSError) as caught:
        write(tmp_path / "file", bytes(5 * BUFFER))
    assert caught.value.errno == error
    assert (tmp_path / "file").stat().st_size == at * BUFFER


def test_a_check_that_raises_ends_the_writing_and_no_thread_writes_any_more(tmp_path: Path, disk: Disk) -> None:
    calls = iter(range(100))

    def check() -> None:
        if next(calls) == 9:
            raise OSError(errno.ECANCELED, "cancelled")

    with pytest.raises(OSError, match="cancelled"):
        write(tmp_path / "file", bytes(50 * BUFFER), check)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("writing")]


def test_the_file_is_no_longer_of_o_direct_when_it_is_left(tmp_path: Path, disk: Disk) -> None:
    with (tmp_path / "file").open("x+b") as file:
        with StreamedFile(file) as streamed:
            streamed.write(bytes(3 * BUFFER))
        assert not fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT


def test_a_file_is_finished_by_a_thread_that_outlives_the_program(tmp_path: Path) -> None:
    """An interpreter that ends waits for the thread that saves, and lets it start no other."""
    code = (
        "import time\nfrom concurrent.futures import ThreadPoolExecutor, thread\n"
        "from utils import streamed_file\nstreamed_file.BUFFER_BYTES = 8192\n"
        "def save():\n"
        "    while not thread._shutdown: time.sleep(0.01)\n"
        "    with open('file', 'x+b') as file, streamed_file.StreamedFile(file) as streamed:\n"
        "        streamed.write(bytes(100_000)); streamed.flush()\n"
        "ThreadPoolExecutor(1).submit(save)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
        timeout=60,
    )
    assert done.returncode == 0 and (tmp_path / "file").stat().st_size == 100_000
