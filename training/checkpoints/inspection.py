"""What a file holds, as facts: its record, and its tensors by module. Reads no tensor, needs no torch.

Of the file only its end, its record and torch's list of tensors are read, which takes milliseconds for gigabytes; that
no bit of the rest was changed is what `checking` finds out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.frozen_reference import FROZEN_KIND, find_frozen
from training.checkpoints.record import CheckpointRecord, Kind, record_from_dict
from training.checkpoints.sealed_file import read_record
from training.checkpoints.tensor_table import TensorTable, read_tensor_table
from utils.errors import UserError
from utils.terminal_text import printable


@dataclass(frozen=True)
class Inspection:
    """What one file holds, as far as it could be read, and what is wrong with it.

    `kind` is None for a file of another program; files of frozen weights have a kind and no record.
    """

    path: Path
    bytes_on_disk: int
    kind: Kind | None
    record: CheckpointRecord | None
    table: TensorTable | None
    problems: tuple[str, ...]


def inspect_file(path: Path) -> Inspection:
    """Read the record and the list of tensors of a file; whatever cannot be read is a problem of the result."""
    kind, record, table, problems = None, None, None, []
    size = path.stat().st_size
    try:
        stored = read_record(path)
        if stored is not None and stored.get("kind") == FROZEN_KIND:
            kind = Kind.FROZEN
        elif stored is not None:
            record = record_from_dict(stored, path, size)
            kind = record.kind
        if record and record.frozen:
            find_frozen(path, record.frozen)
    except (BadCheckpointFileError, UserError) as error:
        problems.append(str(error))
    try:
        table = read_tensor_table(path)
        problems += code_complaints(table)
    except BadCheckpointFileError as error:
        if not problems:  # else it is the same damage, told twice
            problems.append(str(error))
    return Inspection(path, size, kind, record, table, tuple(map(printable, problems)))


def code_complaints(table: TensorTable) -> list[str]:
    """Return why loading refuses a file that names functions or classes; nothing for a plain one."""
    if not table.code:
        return []
    return [
        f"it holds more than tensors and plain values (it refers to {', '.join(table.code[:3])}): "
        "loading it could run code, so that is refused"
    ]
