"""What W&B's own files in a folder hold of a run: how many points earlier processes have handed over.

W&B writes each process's records into one `run-<id>.wandb`: a header of 7 bytes, then blocks of 32 KiB with entries as
in LevelDB's log (checksum, length, kind, content); an entry that does not fit goes on in the next block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 32 * 1024
_HEADER = b":W&B"
_HEADER_BYTES = 7
_ENTRY = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def points_in(folder: Path, run_id: str) -> int | None:
    """Return how many points of a run the files under `folder` hold; None where there is no file of that run.

    Points are numbered from 0 without gaps, so the highest number tells. A file that a kill or power cut has cut off
    counts as far as it can be read. Raises OSError.
    """
    files = sorted(folder.glob(f"wandb/*run-*-{run_id}/run-{run_id}.wandb"))
    return max((points_in_file(path) for path in files), default=None)


def points_in_file(path: Path) -> int:
    """Return one more than the highest number of a point in this file; 0 where there is none."""
    return max((record.history.step.num + 1 for record in records_in(path) if record.HasField("history")), default=0)


def records_in(path: Path) -> Iterator[Any]:
    """Yield the records (wandb.proto `Record`) of a file, up to its end or to where it is damaged."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    record_type: Any = import_module("wandb.proto.wandb_internal_pb2").Record
    for entry in _entries(path.read_bytes()):
        try:
            yield record_type.FromString(entry)
        except DecodeError:
            return


def _entries(content: bytes) -> Iterator[bytes]:
    position = _HEADER_BYTES if content.startswith(_HEADER) else len(content)
    gathered = b""
    while position + _ENTRY.size <= len(content):
        left_in_block = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left_in_block < _ENTRY.size:
            position += left_in_block
            continue
        _, length, kind = _ENTRY.unpack_from(content, position)
        begin = position + _ENTRY.size
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or begin + length > len(content):
            return
        gathered = (b"" if kind in (_FULL, _FIRST) else gathered) + content[begin : begin + length]
        position = begin + length
        if kind in (_FULL, _LAST):
            yield gathered
