"""Whether an MPEG audio file says how long it is: in a tag in its first frame, or nowhere, and a decoder guesses.

A guess from the first bit rate is far off where the bit rate varies: libmpg123 then gives a part of the sound, or
promises what was never there. The tags are those of Xing (`Xing`, `Info`) and Fraunhofer (`VBRI`).
"""

from __future__ import annotations

import os

_TAGS = (b"Xing", b"Info", b"VBRI")
_FIRST_BYTES = 4096
_ID3_HEAD_BYTES = 10


def is_mpeg(head: bytes) -> bool:
    """Whether a file begins as MPEG audio does, by a tag or a sync word (ISO/IEC 11172-3, 2.4.1.3)."""
    return head[:3] == b"ID3" or is_frame(head)


def is_frame(head: bytes) -> bool:
    """Whether bytes begin with the sync word of a frame."""
    return len(head) > 1 and head[0] == 0xFF and head[1] >= 0xE0


def says_its_length(descriptor: int) -> bool:
    """Whether the first frame of an open MPEG file, behind an ID3 tag (id3.org, ID3v2.4, 3.1), tells the length."""
    head = os.pread(descriptor, _ID3_HEAD_BYTES, 0)
    begin = 0
    if head[:3] == b"ID3":
        begin = _ID3_HEAD_BYTES + sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:10])))
    first = os.pread(descriptor, _FIRST_BYTES, begin)
    return any(tag in first for tag in _TAGS)
