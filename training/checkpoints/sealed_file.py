"""The bytes of a checkpoint file: a torch archive, a JSON record inside it, a seal over every byte. No torch needed.

    archive/data.pkl, archive/data/0, ...   what torch.save wrote
    archive/record.json                     what listing, planning and inspection need
    zip comment                             the seal "bonafide sealed crc32:xxxxxxxx": CRC-32 of all bytes before it

torch.load reads such a file as it is, with `weights_only=True`, and any zip tool shows the record. torch ignores a
record in the archive's top folder, and refuses the file if it lies at the top level. torch.load checks no checksum, so
a flipped bit would become a wrong weight without a word: `broken_seal` finds every damage, padding and zip directory
included, in one sequential read. A CRC-32 is for accidents; it proves nothing against somebody who forges a file.
"""

from __future__ import annotations

import codecs
import io
import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from training.checkpoints.crc32 import combined, crc32
from training.checkpoints.file_format import (
    CUT_OR_BAD_BLOCK,
    SEAL,
    SEAL_BYTES,
    BadCheckpointFileError,
    FileFormat,
    format_of,
    has_seal,
    sealed_bytes,
)
from training.checkpoints.last_entry import Readable, read_last_entry
from training.checkpoints.safetensors_file import BadSafetensorsError, header_in
from training.checkpoints.zip_directory import open_zip
from utils.direct_io import BUFFER_BYTES, REFUSED, aligned_memory, set_direct
from utils.regular_files import open_regular
from utils.stored_values import OddValueError, plain_json

codecs.lookup("cp437")  # zipfile's, for names: a disk that fails when it is read later would leave it unknown for good

RECORD_NAME = "record.json"
_ENTRY, _DIRECTORY = b"PK\x03\x04", b"PK\x01\x02"  # how their headers begin (PKWARE APPNOTE 6.3.3, 4.3.7, 4.3.12)
_RECORD_LIMIT_BYTES = 1 << 24
# What zipfile raises beside BadZipFile: a changed flag makes an entry encrypted, or of another compression.
BAD_ENTRY = (
    ValueError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


class Writable(Protocol):
    """What a file is written by."""

    def write(self, data: Any, /) -> int:
        """Take bytes and return their number."""

    def flush(self) -> None:
        """Hand over what is held back."""


class _OnDisk(Readable, Protocol):
    def fileno(self) -> int: ...


class SequentialWriter:
    """Passes writes on, one behind the other, but for the zip directory at the end, which waits for the record.

    `held` are the bytes from `held_from` on, none of which is written yet, and `crc` the CRC-32 of all before them. A
    directory begins with a write of its own, and after it comes no entry; of an entry whose content begins like one,
    that is written when the next entry comes.
    """

    def __init__(self, file: Writable) -> None:
        self._file = file
        self._is_holding = False
        self.held = bytearray()
        self.held_from = 0
        self.crc = 0

    def write(self, data: Any) -> int:
        """Take bytes and return their number."""
        view = memoryview(data).cast("B")
        return self.write_known(view, None if self._is_holding else crc32(view))

    def write_known(self, view: memoryview, crc: int | None) -> int:
        """Take bytes whose CRC-32 is known, if it is."""
        start = bytes(view[: len(_ENTRY)])
        if self._is_holding and start == _ENTRY:
            self._is_holding = False
            held, self.held = self.held, bytearray()
            self._pass_on(memoryview(held), None)
        self._is_holding = self._is_holding or start == _DIRECTORY
        if self._is_holding:
            self.held += view
        else:
            self._pass_on(view, crc)
        return view.nbytes

    def _pass_on(self, view: memoryview, crc: int | None) -> None:
        self._file.write(view)
        self.crc = combined(self.crc, crc32(view) if crc is None else crc, view.nbytes)
        self.held_from += view.nbytes

    def flush(self) -> None:
        """Nothing to do: `write_sealed` flushes once all is written."""


class _EndOfFile(io.BytesIO):
    """The last bytes of a file, in memory, at the positions that they have in the file."""

    def __init__(self, content: bytes, begins_at: int) -> None:
        super().__init__(content)
        self._begins_at = begins_at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET:
            offset -= self._begins_at
        return super().seek(offset, whence) + self._begins_at

    def tell(self) -> int:
        return super().tell() + self._begins_at


def write_sealed(file: Writable, save: Callable[[Any], None], record: dict[str, Any]) -> None:
    """Let `save` write a torch archive into the empty binary `file`, then add the record and the seal.

    The file is written from its start to its end and never read: so nothing that a disk reads wrongly can be sealed. It
    is flushed, and not synced: that is the caller's part. Raises OSError, and zipfile.BadZipFile for what `save` wrote
    if it is no archive.
    """
    writer = SequentialWriter(file)
    save(writer)
    end = _EndOfFile(bytes(writer.held), writer.held_from)
    with zipfile.ZipFile(end) as archive:  # which "a" would take for a new one where it is none
        top = archive.namelist()[0].split("/", 1)[0]
    with zipfile.ZipFile(end, "a") as archive:
        entry = zipfile.ZipInfo(f"{top}/{RECORD_NAME}")  # of 1980, as torch's entries: same content, same bytes
        entry.external_attr = 0o600 << 16
        archive.writestr(entry, json.dumps(record, indent=1, allow_nan=False))
        archive.comment = SEAL % 0
    content = end.getvalue()[:-SEAL_BYTES]
    file.write(content + SEAL % crc32(content, writer.crc))
    file.flush()


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the JSON record of a file, or None for a torch file that has none (written by another program).

    Reads some kilobytes at the end of the file, whatever its size, and so finds no damage elsewhere: see `broken_seal`.
    Raises BadCheckpointFileError where the file is cut short, is no torch file at all, or its record is damaged.
    """
    try:
        with open_regular(path, buffering=0) as file:  # a buffer would read more than is asked for
            return record_in(file, format_of(file, path.suffix))
    except OSError as error:
        raise BadCheckpointFileError(cannot_be_read(error)) from error


def cannot_be_read(error: OSError) -> str:
    """Say that a file cannot be read, in the system's words."""
    return f"it cannot be read ({error.strerror or error})"


def record_in(file: Readable, found: FileFormat) -> dict[str, Any] | None:
    """Return the JSON record in an open file of the format that was found; as `read_record`, but raises OSError too."""
    if found is FileFormat.SAFETENSORS:
        try:
            header_in(file)
        except BadSafetensorsError as error:
            raise BadCheckpointFileError(str(error)) from error
    if not found.is_zip:
        return None
    try:
        return _last_record(file) or _record_among_entries(file)
    except zipfile.BadZipFile as error:
        raise BadCheckpointFileError(f"it was {CUT_OR_BAD_BLOCK} ({error})") from error
    except BAD_ENTRY as error:
        raise BadCheckpointFileError(f"its record cannot be read ({error})") from error


def _record_among_entries(file: Readable) -> dict[str, Any] | None:
    """Return the record of a zip file wherever it lies, None for one of torch without; raises what zipfile does."""
    with open_zip(file) as archive:
        names = archive.namelist()
        top = names[0].split("/", 1)[0] if names else ""
        if f"{top}/{RECORD_NAME}" in names:
            if archive.getinfo(f"{top}/{RECORD_NAME}").file_size > _RECORD_LIMIT_BYTES:
                raise BadCheckpointFileError("its record is larger than any that bonafide writes")
            return _parsed(archive.read(f"{top}/{RECORD_NAME}"))
        if f"{top}/data.pkl" in names:
            return None
        raise BadCheckpointFileError("it is a zip file, and not one that torch wrote")


def _last_record(file: Readable) -> dict[str, Any] | None:
    """Return the record of a file as `write_sealed` leaves it, or None for zipfile to judge.

    The record is the last entry of such a file, so the hundreds of tensors before it need not be listed.
    """
    entry = read_last_entry(file, SEAL_BYTES, _RECORD_LIMIT_BYTES)
    if entry is None or entry[0].count("/") != 1 or not entry[0].endswith(f"/{RECORD_NAME}"):
        return None
    return _parsed(entry[1])


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        record = plain_json(content)
    except OddValueError as error:
        raise BadCheckpointFileError(f"its record is damaged ({error})") from error
    if not isinstance(record, dict):
        raise BadCheckpointFileError("its record is not a JSON object")
    return record


def broken_seal(path: Path) -> str | None:
    """Read the whole file, holding none of it, and return what is wrong with it, or None if every bit is as written.

    A large one is read from the disk itself, past what the system may remember of it, where the file system can. Files
    of other programs carry no seal; for those the CRC-32 of each zip entry is checked. What is to be loaded is opened
    by `verified_file` instead.
    """
    try:
        with open_regular(path, buffering=0) as file:
            found = format_of(file, path.suffix)
            return _broken_seal_on_disk(file) if found is FileFormat.SEALED else broken_entry(file, found)
    except BadCheckpointFileError as error:
        return str(error)
    except OSError as error:
        return cannot_be_read(error)


def _broken_seal_on_disk(file: _OnDisk) -> str | None:
    if sealed_bytes(file) < BUFFER_BYTES or not set_direct(file.fileno(), True):
        return _broken_seal_in(file)
    try:
        return _broken_seal_in(file)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        set_direct(file.fileno(), False)
        return _broken_seal_in(file)


def broken_seal_of(file: _OnDisk) -> str | None:
    """Read an open file of ours from its start and return what is wrong with it, or None; raises OSError."""
    return _broken_seal_in(file) if has_seal(file) else "its seal is missing or damaged"


def _broken_seal_in(file: _OnDisk) -> str | None:
    size = sealed_bytes(file)
    at, crc, seal = 0, 0, b""
    with aligned_memory(BUFFER_BYTES) as memory, memoryview(memory) as buffer:
        while at < size + SEAL_BYTES:
            count = os.preadv(file.fileno(), [buffer], at)
            if not count:
                raise OSError("the file became shorter while it was read")
            sealed = max(0, min(count, size - at))
            crc = crc32(buffer[:sealed], crc)
            seal += buffer[sealed:count]
            at += count
    return seal_complaint(crc, seal)


def seal_complaint(crc: int, seal: bytes) -> str | None:
    """Return what is wrong with a file whose bytes before the seal have this CRC-32, None for nothing."""
    found = SEAL % crc
    if found == seal:
        return None
    return f"its checksum does not match (bytes were changed after it was written): {found[-8:].decode()} found, " + (
        f"{seal[-8:].decode(errors='replace')} sealed"
    )


def broken_entry(file: Readable, found: FileFormat) -> str | None:
    """Return what is wrong with an open file without our seal, as far as that shows; one with our record must have one.

    Raises OSError.
    """
    try:
        if record_in(file, found) is not None:
            return "its seal is missing or damaged"
        if not found.is_zip:
            return None  # the others have no checksum at all
        with open_zip(file) as archive:
            entry = archive.testzip()
    except BadCheckpointFileError as error:
        return str(error)
    except (zipfile.BadZipFile, *BAD_ENTRY) as error:
        return f"it is damaged ({error})"
    return f"its entry {entry} is damaged" if entry else None
