"""What the header of a WAV file, and of those like it, says of the length of its samples, against the bytes there are.

Chunks as in the Multimedia Programming Interface and Data Specifications 1.0 (IBM and Microsoft, 1991), "RIFF". RF64 is
one with a length of 64 bits in a chunk before (EBU Tech 3306), AIFF has them in the other order of bytes (Apple, Audio
Interchange File Format 1.3), and AU has a header alone (Sun, audio.h).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal

_Order = Literal["little", "big"]
RIFF: Mapping[bytes, _Order] = {b"RIFF": "little", b"RIFX": "big", b"RF64": "little", b"FORM": "big"}
"""How a file begins, and the order of the bytes in its numbers."""

AU = b".snd"
_SOUND = {b"data": 0, b"SSND": 8}  # the chunks of samples, and how many bytes are before these
_NO_LENGTH_BYTES = 0x7FFFF000  # a program that wrote to a pipe leaves 2 or 4 GB as the length
_NOT_SAID_BYTES = 0xFFFFFFFF
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
    kind = os.pread(descriptor, 4, 0)
    if kind == AU:
        begin, said = (int.from_bytes(os.pread(descriptor, 4, place), "big") for place in (4, 8))
        return DataChunk(said, size - begin, max(0, size - begin - said))
    order = RIFF.get(kind)
    at, length_of_64_bits = 12, 0
    for _ in range(_MOST_CHUNKS):
        head = os.pread(descriptor, 8, at)
        if order is None or len(head) < 8:
            return None
        length = int.from_bytes(head[4:], order)
        if head[:4] in _SOUND:
            length = length_of_64_bits if length == _NOT_SAID_BYTES and length_of_64_bits else length
            end, before = at + 8 + length, _SOUND[head[:4]]
            at += 8 + before
            return DataChunk(length - before, size - at, _unexplained(descriptor, end, order, size))
        if head[:4] == b"ds64" and kind == b"RF64":
            length_of_64_bits = int.from_bytes(os.pread(descriptor, 8, at + 16), order)
        at += 8 + length + length % 2
    return None


def _unexplained(descriptor: int, at: int, order: _Order, size: int) -> int:
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
