"""Checks whole checkpoint files, every bit of them, and says what each is good for. Changes nothing, needs no torch.

A file is `ok` if its seal holds, its record is one that this version reads, every key of its kind is there, and its
weights are not empty. Files of other programs have no seal: their zip checksums, the length of every tensor's values
and that there are tensors at all is what can be checked, and what loading would refuse is named.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.checkpoints.examined import UnusableFile, WeightsFile, examine
from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.frozen_reference import WEIGHTS_KEY, FrozenFile, FrozenReference, broken_frozen
from training.checkpoints.inspection import code_complaints
from training.checkpoints.record import STATE_DICT, CheckpointRecord
from training.checkpoints.sealed_file import broken_seal
from training.checkpoints.tensor_table import TensorTable, read_tensor_table
from utils.terminal_text import printable


class Verdict(enum.Enum):
    """What a file turned out to be."""

    OK = "ok"  # training can resume from it
    WEIGHTS_ONLY = "weights only: ok"  # a run can start from it
    FROZEN = "frozen weights: ok"  # checkpoints refer to it
    DAMAGED = "DAMAGED"  # it is not as it was written
    UNUSABLE = "UNUSABLE"  # it is as it was written, and training would refuse it

    @property
    def is_good(self) -> bool:
        """Whether training can make use of such a file."""
        return self in (Verdict.OK, Verdict.WEIGHTS_ONLY, Verdict.FROZEN)


@dataclass(frozen=True)
class CheckedFile:
    """One file, its verdict, the reason for a bad one, and what a person should know about a good one."""

    path: Path
    bytes_on_disk: int
    verdict: Verdict
    reason: str = ""
    note: str = ""

    def line(self) -> str:
        """Return the line of this file.

        >>> CheckedFile(Path("a.pth"), 5, Verdict.DAMAGED, "it is empty").line()
        'a.pth: DAMAGED: it is empty'
        """
        reason = f": {self.reason}" if self.reason else ""
        return printable(f"{self.path}: {self.verdict.value}{reason}{f' ({self.note})' if self.note else ''}")

    def as_document(self) -> dict[str, Any]:
        """Return this file for --json: path, bytes, verdict (a lower-case name), reason and note (null for none)."""
        return {
            "path": str(self.path),
            "bytes": self.bytes_on_disk,
            "verdict": self.verdict.name.lower(),
            "reason": self.reason or None,
            "note": self.note or None,
        }


def check_files(paths: Iterable[Path]) -> Iterator[CheckedFile]:
    """Check files one after the other; a file under two names (the best checkpoint is a link) is read once.

    So are the frozen weights that the checkpoints of a folder refer to, beside their own line.
    """
    known: dict[tuple[int, int], CheckedFile] = {}
    frozen: dict[tuple[Path, FrozenReference], str | None] = {}
    for path in paths:
        identity = _identity(path)
        earlier = known.get(identity) if identity else None
        if earlier:
            yield replace(earlier, path=path, note=f"the same file as {earlier.path.name}")
            continue
        checked = check_file(path, frozen)
        if identity:
            known[identity] = checked
        yield checked


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_file(path: Path, frozen: dict[tuple[Path, FrozenReference], str | None] | None = None) -> CheckedFile:
    """Read one file from its first byte to its last and say what it is good for.

    `frozen` remembers what was found out about frozen weights, for the next files of the folder.
    """
    size = size_of(path)
    damage = broken_seal(path)
    if damage:
        return CheckedFile(path, size, Verdict.DAMAGED, damage)
    found = examine(path)
    if isinstance(found, UnusableFile):
        return CheckedFile(path, size, Verdict.UNUSABLE, found.reason)
    try:
        table = read_tensor_table(path)
    except BadCheckpointFileError as error:
        return CheckedFile(path, size, Verdict.DAMAGED, str(error))
    complaints = [*code_complaints(table), *_missing_parts(found, table)]
    if isinstance(found, CheckpointRecord) and found.frozen:
        complaints += _broken_frozen(found.path, found.frozen, {} if frozen is None else frozen)
    if complaints:
        return CheckedFile(path, size, Verdict.UNUSABLE, "; ".join(complaints))
    if not isinstance(found, WeightsFile):
        return CheckedFile(path, size, Verdict.FROZEN if isinstance(found, FrozenFile) else Verdict.OK)
    note = "" if table.has_checksums else "a format without checksums: only its structure was checked"
    return CheckedFile(path, size, Verdict.WEIGHTS_ONLY, note=note)


def _broken_frozen(
    checkpoint: Path, needed: FrozenReference, known: dict[tuple[Path, FrozenReference], str | None]
) -> list[str]:
    key = checkpoint.parent, needed
    if key not in known:
        known[key] = broken_frozen(checkpoint, needed)
    return [reason] if (reason := known[key]) else []


def size_of(path: Path) -> int:
    """Return the bytes of a file, 0 for a link that leads nowhere."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _missing_parts(found: CheckpointRecord | WeightsFile | FrozenFile, table: TensorTable) -> list[str]:
    """Return what a file of its kind should hold and this one does not."""
    if isinstance(found, WeightsFile) and found.epoch is None:
        return [] if table.tensors else ["it holds no tensor"]
    record = found if isinstance(found, CheckpointRecord) else found.record if isinstance(found, WeightsFile) else None
    required = record.required_keys if record else (WEIGHTS_KEY,)
    missing = [key for key in required if key not in table.keys]
    if missing:
        return [f"it lacks {', '.join(missing)}"]
    weights = [key for key in record.weights if key.endswith(STATE_DICT)] if record else [WEIGHTS_KEY]
    return [f"its {key} is empty" for key in weights if not table.under(key)]
