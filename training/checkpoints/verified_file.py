"""A checkpoint file, opened once and with every byte verified: what needs a verified file takes this object, no path.

So nothing can change between the check and the loading (`file_bytes` says how). What a file is, is read from the same
bytes. The weights that a checkpoint refers to come along, verified as well. No torch needed: the plan is made of
verified files, and `verified_load` makes tensors of their bytes, once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.checkpoints.examined import WeightsFile, facts_of
from training.checkpoints.file_bytes import FileBytes
from training.checkpoints.file_format import BadCheckpointFileError, FileFormat, NotUsableError, format_of, sealed_bytes
from training.checkpoints.frozen_reference import FrozenFile, FrozenReference, find_frozen
from training.checkpoints.record import CheckpointRecord, record_from_dict
from training.checkpoints.sealed_file import broken_entry, cannot_be_read, record_in, seal_complaint
from training.checkpoints.zip_directory import open_zip
from utils.errors import UserError
from utils.regular_files import open_regular

KnownFrozen = dict[FrozenReference, "VerifiedFile | str"]


class BrokenFileError(BadCheckpointFileError):
    """A file that says what it is, and whose bytes are not those that were written."""


class NoLongerReadableError(UserError):
    """A file that was whole when it was verified, and could not be read, or not read the same, when it was loaded."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}")
        self.reason = reason


@dataclass(frozen=True, eq=False)
class VerifiedFile:
    """A whole file: what it is, the JSON record in it (None if another program wrote it), its bytes and their format.

    `frozen` is the file with the weights that a checkpoint refers to. A file is loaded once: then its bytes are given
    back, and `is_spent` is true.
    """

    facts: CheckpointRecord | WeightsFile | FrozenFile
    stored: Mapping[str, Any] | None
    content: FileBytes = field(repr=False)
    format: FileFormat
    frozen: VerifiedFile | None = None

    @property
    def path(self) -> Path:
        """The name that it was opened by, or that is said instead (`named`)."""
        return self.facts.path

    @property
    def source(self) -> CheckpointRecord | WeightsFile:
        """What it is, for a file that a run can start from: of frozen weights alone it cannot."""
        if isinstance(self.facts, FrozenFile):
            raise TypeError(f"{self.path} holds frozen weights, and nothing starts from those")
        return self.facts

    @property
    def is_spent(self) -> bool:
        """Whether it was loaded."""
        return self.content.is_spent

    def named(self, path: Path) -> VerifiedFile:
        """Return the same file under another of its names."""
        return replace(self, facts=replace(self.facts, path=path))

    def record(self) -> CheckpointRecord | None:
        """Return the record of a file of ours, of one with weights alone too; None for any other."""
        if self.stored is None or isinstance(self.facts, FrozenFile):
            return None
        return record_from_dict(self.stored, self.path, self.content.size)

    def is_at(self, path: Path) -> bool:
        """Whether a name leads to this very file, unchanged in size and time since it was read."""
        try:
            found = path.stat()
        except OSError:
            return False
        return _identity(found) == _identity(self.content.status)

    def digest(self) -> str:
        """Return what tells its content from any other, in hexadecimal; to be asked before it is loaded.

        Of a file of ours the SHA-256 of its end, where the CRC-32 and size of every part and of the whole are; of any
        other that of all bytes.
        """
        try:
            if self.format is not FileFormat.SEALED:
                return self.content.sha256()
            end = self.content.reader()
            with open_zip(end) as archive:
                end.seek(archive.start_dir)
                return hashlib.sha256(end.read()).hexdigest()
        except OSError as error:
            raise NoLongerReadableError(self.path, cannot_be_read(error)) from error


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def open_verified(path: Path) -> VerifiedFile:
    """Return a file with its every bit and its frozen weights verified; raises UserError where one of them is bad."""
    try:
        return verify(path)
    except NotUsableError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    except BadCheckpointFileError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def verify(path: Path, known: KnownFrozen | None = None) -> VerifiedFile:
    """Return a file with every bit of it verified, as far as its format allows, and its frozen weights.

    One of ours has its seal; of those of other programs the CRC-32 of each zip entry is checked, and safetensors and
    the format before torch 1.6 have no checksum. `known` remembers frozen weights for the next file that needs them.
    Raises BadCheckpointFileError where it cannot be read or does not say what it is, NotUsableError where this program
    has no use for it or its frozen weights are bad, and BrokenFileError where it is damaged.
    """
    try:
        file = open_regular(path, buffering=0)
    except OSError as error:
        raise BadCheckpointFileError(cannot_be_read(error)) from error
    try:
        if (claimed := format_of(file, path.suffix)) is not FileFormat.SEALED:
            record_in(file, claimed)  # before all of it is read: what is no file of weights may have any size
        content = FileBytes(file)
        found = format_of(content.reader(), path.suffix)
        stored = record_in(content.reader(), found)
        try:
            facts = facts_of(stored, path, content.size)
        except (BadCheckpointFileError, UserError) as error:
            raise NotUsableError(str(error)) from error
        damage = _damage_in(content, found)
        damage = content.failure or damage
    except OSError as error:
        raise BrokenFileError(cannot_be_read(error)) from error
    if damage:
        raise BrokenFileError(damage)
    needed = facts.frozen if isinstance(facts, CheckpointRecord) else None
    return VerifiedFile(facts, stored, content, found, _frozen(path, needed, known) if needed else None)


def _damage_in(content: FileBytes, found: FileFormat) -> str | None:
    reader = content.reader()
    if found is not FileFormat.SEALED:
        return broken_entry(reader, found)
    size = sealed_bytes(reader)
    reader.seek(size)
    return seal_complaint(content.crc32(size), reader.read())


def _frozen(path: Path, needed: FrozenReference, known: KnownFrozen | None) -> VerifiedFile:
    known = {} if known is None else known
    if needed not in known:  # gigabytes, maybe, and the same for all checkpoints of a run
        try:
            known[needed] = open_frozen(path, needed)
        except BadCheckpointFileError as error:
            known[needed] = str(error)
    found = known[needed]
    if isinstance(found, str):
        raise NotUsableError(found)
    return found


def open_frozen(checkpoint: Path, needed: FrozenReference) -> VerifiedFile:
    """Return the file with the weights that a checkpoint needs, verified; raises BadCheckpointFileError."""
    path = find_frozen(checkpoint, needed)
    try:
        return verify(path)
    except BadCheckpointFileError as error:
        raise BadCheckpointFileError(f"the frozen weights that it needs, {path}, are damaged: {error}") from error
