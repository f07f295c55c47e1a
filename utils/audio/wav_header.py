"""What the header of a WAV file says of the length of its samples, against the bytes that are there.

Chunks as in the Multimedia Programming Interface and Data Specifications 1.0 (IBM and Microsoft, 1991), "RIFF".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal

RIFF: Mapping[bytes, Literal["little", "big"]] = {b"RIFF": "little", b"RIFX": "big"}
"""How a file begins, and the order of the bytes in its numbers."""

_NO_LENGTH_BYTES = 0x7FFFF000  # a program that wrote to a pipe leaves 2 or 4 GB as the length
_MOST_CHUNKS = 1000


@dataclass(frozen=True)
class DataChunk:
    """The bytes of samples that the header has `said`, those `present` from there to the end of the file, and those
    `unexplained` behind what was said, which belong to no other chunk."""

    said: int
    present: int
    unexplained: int

    @property
    def is_cut(self) -> bool:
        """Whether fewer bytes follow than were said, by a program that knew how many there would be."""
        return self.present < self.said < _NO_LENGTH_BYTES


def data_chunk(file: BinaryIO) -> DataChunk | None:
    """Return what is known of the samples of an open file, whose position stays; None where that is no plain RIFF."""
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    order = RIFF.get(os.pread(descriptor, 4, 0))
    at = 12
    for _ in range(_MOST_CHUNKS):
        head = os.pread(descriptor, 8, at)
        if order is None or len(head) < 8:
            return None
        length = int.from_bytes(head[4:], order)
        if head[:4] == b"data":
            at += 8
            return DataChunk(length, size - at, _unexplained(descriptor, at + length, order, size))
        at += 8 + length + length % 2
    return None


def _unexplained(descriptor: int, at: int, order: Literal["little", "big"], size: int) -> int:
    """Return how many bytes from `at` to the end are no chunks; a chunk begins at an even place, but not all do."""
    for _ in range(_MOST_CHUNKS):
        if at >= size:
            return 0
        begins = next((begin for begin in (at + at % 2, at) if _is_chunk(os.pread(descriptor, 4, begin))), None)
        if begins is None:
            return size - at
        length = int.from_bytes(os.pread(descriptor, 4, begins + 4), order)
        at = begins + 8 + length
    return size - at


def _is_chunk(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)
