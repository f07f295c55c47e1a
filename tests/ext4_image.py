"""An ext4 file system in a file: what a power cut leaves of it is a copy of that file, taken at that moment.

What the mounted file system has not sent to its drive yet is in the kernel's memory, and in no copy of the image. Three
mount options take away what would hide a missing fsync: commits every 300 s instead of 5, no rescue of files replaced
by rename (`noauto_da_alloc`), and, in half of the tests, no order between data and names (`data=writeback`).
"""

from __future__ import annotations

import collections
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE_BYTES = 8 * 2**20
BLOCK_BYTES = 1024
_COMMIT_BLOCK = bytes.fromhex("c03b3998 00000002")
UNFORGIVING = ("commit=300", "noauto_da_alloc")


def make_image(path: Path) -> None:
    """Write an empty ext4 file system; raises CalledProcessError where mkfs.ext4 fails."""
    with path.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    _run("mkfs.ext4", "-q", "-F", "-b", str(BLOCK_BYTES), str(path))


@contextmanager
def mounted(image: Path, folder: Path, *options: str) -> Iterator[Path]:
    """Mount an image at `folder`, which replays its journal as the first mount after a power cut does."""
    folder.mkdir(exist_ok=True)
    _run("mount", "-t", "ext4", "-o", ",".join(("loop", *options)), str(image), str(folder))
    try:
        yield folder
    finally:
        _run("umount", str(folder))


def why_not_here() -> str:
    """Return why no image can be mounted on this machine, "" where one can."""
    missing = [tool for tool in ("mkfs.ext4", "mount", "umount") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found"
    if os.geteuid():
        return "mounting a file system takes root"
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image")
        try:
            make_image(image)
            with mounted(image, Path(folder, "mount")):
                return ""
        except subprocess.CalledProcessError as error:
            return f"no ext4 image can be mounted ({error.stderr.strip()})"


def partly_written(before: Path, after: Path, made: Path, draw: random.Random) -> None:
    """Make the image that a cut leaves between two others: of the blocks that differ, a random part has arrived.

    In any order, but for the blocks that commit a transaction: ext4 sends those when the drive has flushed the rest. It
    sends metadata to their own place later still, so those do not arrive here either; they are known by being in the
    journal too, with the same content. Format: Linux, Documentation/filesystems/ext4/journal.rst, "Block Header".
    """
    content, later = bytearray(before.read_bytes()), after.read_bytes()
    places = range(0, IMAGE_BYTES, BLOCK_BYTES)
    times = collections.Counter(later[at : at + BLOCK_BYTES] for at in places)
    changed = [
        at
        for at in places
        if content[at : at + BLOCK_BYTES] != later[at : at + BLOCK_BYTES]
        and later[at : at + 8] != _COMMIT_BLOCK
        and times[later[at : at + BLOCK_BYTES]] == 1
    ]
    if not changed:
        made.write_bytes(content)
        return
    for at in draw.sample(changed, draw.randint(1, len(changed))):
        content[at : at + BLOCK_BYTES] = later[at : at + BLOCK_BYTES]
    made.write_bytes(content)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
