"""The last entry of a zip file, found from its end, without the directory of the hundreds of entries before it.

Format: PKWARE APPNOTE 6.3.3, sections 4.3.7 (local header), 4.3.12 (directory entry), 4.3.14-16 (ends) and 4.5.3.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Protocol

_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_ZIP64_END_BYTES = 56 + 20
_ZIP64_OFFSET_BYTES = 4 + 8
_IN_EXTRA = 0xFFFFFFFF
_TAIL_BYTES = 512  # the ends of the file and the last entry of its directory, with room for the name


class Readable(Protocol):
    """What is read of an open binary file, or of the bytes of one in memory."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next `size` bytes, or all that are left."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position and return it, from the start, from here (1) or from the end (2)."""

    def tell(self) -> int:
        """Return the position."""


@dataclass(frozen=True)
class _Place:
    """Where an entry lies, as the zip file's directory says."""

    name: bytes
    header: int
    bytes: int
    crc: int


def read_last_entry(file: Readable, comment_bytes: int, limit_bytes: int) -> tuple[str, bytes] | None:
    """Return name and content of the last entry of a zip file with a comment of this length; two small reads.

    The entry is one as zipfile writes it uncompressed, of at most `limit_bytes`. Whatever is not exactly as expected
    gives None, for zipfile to judge.
    """
    place = _place_of_last(file, comment_bytes)
    if place is None or place.bytes > limit_bytes:
        return None
    file.seek(place.header)
    stored = file.read(_LOCAL.size + len(place.name) + place.bytes)
    name, content = stored[_LOCAL.size :][: len(place.name)], stored[_LOCAL.size + len(place.name) :]
    has_no_extra = stored[_LOCAL.size - 2 : _LOCAL.size] == b"\0\0"
    if stored[:4] != b"PK\x03\x04" or not has_no_extra or name != place.name or len(content) != place.bytes:
        return None
    if zlib.crc32(content) != place.crc or not name.isascii():
        return None
    return name.decode("ascii"), content


def _place_of_last(file: Readable, comment_bytes: int) -> _Place | None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    end = len(tail) - _END.size - comment_bytes
    if end < _ZIP64_END_BYTES or tail[end : end + 4] != b"PK\x05\x06":
        return None
    if tail[end - _ZIP64_END_BYTES :][:4] == b"PK\x06\x06":  # files from 2 GiB on have a second end before the end
        end -= _ZIP64_END_BYTES
    entry = tail.rfind(b"PK\x01\x02", 0, end)
    if entry < 0 or end - entry < _ENTRY.size:
        return None
    fields = _ENTRY.unpack_from(tail, entry)
    crc, stored_bytes, content_bytes, name_bytes, extra_bytes, own_comment_bytes, header = (*fields[7:13], fields[16])
    name = tail[entry + _ENTRY.size : entry + _ENTRY.size + name_bytes]
    extra = tail[entry + _ENTRY.size + name_bytes : end]
    if header == _IN_EXTRA and extra[:4] == b"\1\0\x08\0" and len(extra) == _ZIP64_OFFSET_BYTES:
        header = int.from_bytes(extra[4:], "little")
    is_as_written = (
        len(extra) == extra_bytes
        and own_comment_bytes == 0
        and fields[3:5] == (0, 0)  # no flags, not compressed
        and stored_bytes == content_bytes
    )
    return _Place(name, header, content_bytes, crc) if is_as_written else None
