"""What W&B's own files in a folder hold of a run: with which point the process that goes on must begin.

W&B writes each process's records into one `run-<id>.wandb`: a header of 7 bytes, then blocks of 32 KiB with entries as
in LevelDB's log (checksum, length, kind, content); an entry that does not fit goes on in the next block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from utils.atomic_files import make_folder, remove_stray_temporaries, write_text_atomically

_BLOCK_BYTES = 32 * 1024
_HEADER = b":W&B"
_HEADER_BYTES = 7
_ENTRY = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def next_point(folders: Iterable[Path], run_id: str) -> int | None:
    """Return the number of the first point of a run that no file under `folders` has; None where none is of that run.

    Points are numbered from 0 without gaps, so the highest number tells. What a kill or power cut took from a file is
    not there and is handed over anew. Raises OSError.
    """
    numbers = []
    for folder in folders:
        first = _first_point_file(folder, run_id)
        if first.exists():
            numbers.append(int(first.read_text(encoding="utf-8")))
        for path in folder.glob(f"wandb/*run-*-{run_id}*/run-{run_id}.wandb"):
            numbers += [number + 1 for number in points_in_file(path)]
    return max(numbers, default=None)


def note_first_point(folder: Path, run_id: str, number: int) -> None:
    """Write down with which point the files of a run under `folder` begin, unless it is written; raises OSError.

    W&B writes a little later than it is told: a process that is killed at once leaves a file that says nothing.
    """
    path = _first_point_file(folder, run_id)
    if not path.exists():
        make_folder(path.parent)
        remove_stray_temporaries(path.parent, of=path.name)
        write_text_atomically(path, f"{number}\n")


def _first_point_file(folder: Path, run_id: str) -> Path:
    return folder / "wandb" / f"first-point-{run_id}.txt"


def points_in_file(path: Path) -> list[int]:
    """Return the numbers of the points in a file, in its order."""
    return [record.history.step.num for record in records_in(path) if record.HasField("history")]


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
