"""Disks for tests: file systems of their own that are small enough to fill up, or that can be made to break."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """Mount a file system on `folder`, made for it; skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", *arguments, str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs leave to mount a file system")
    try:
        yield folder
    finally:
        # Lazily: a test that failed may still be in there.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run on a file system of its own with room for a few checkpoints."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64m", "none") as disk:
        monkeypatch.chdir(disk)
        yield disk
        monkeypatch.undo()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64k", "none") as disk:
        yield disk


@pytest.fixture
def disk_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run on an ext4 of its own that turns read-only at an error, as most systems mount theirs; see `break_disk`."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 * 2**20)
    if not shutil.which("mkfs.ext4"):
        pytest.skip("needs mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with mounted(tmp_path / "disk", "-o", "loop,errors=remount-ro", str(image)) as disk:
        monkeypatch.chdir(disk)
        yield disk
        monkeypatch.undo()


def break_disk(disk: Path) -> None:
    """Report an error to the ext4 that is mounted on `disk`, as a broken drive does."""
    found = subprocess.run(
        ["findmnt", "--noheadings", "--output", "SOURCE", str(disk)], capture_output=True, text=True, check=True
    )
    switch = Path("/sys/fs/ext4", Path(found.stdout.strip()).name, "trigger_fs_error")
    if not switch.exists():
        pytest.skip("needs an ext4 that can be told to fail")
    switch.write_text("a broken drive")


def fill(disk: Path, leave: int) -> Path:
    """Write a file that leaves `leave` bytes of room, and return it."""
    filler = disk / "somebody_elses_file"
    filler.write_bytes(os.urandom(max(0, shutil.disk_usage(disk).free - leave)))
    return filler
