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

import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from training.checkpoints.last_entry import Readable, read_last_entry
from training.checkpoints.safetensors_file import SAFETENSORS_SUFFIX, BadSafetensorsError, header_in

RECORD_NAME = "record.json"
_SEAL = b"bonafide sealed crc32:%08x"
_SEAL_BYTES = len(_SEAL % 0)
_CHUNK_BYTES = 1 << 22
_RECORD_LIMIT_BYTES = 1 << 24
# How a file of torch before version 1.6 begins: a pickle of its magic number (torch/serialization.py).
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_PICKLE_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
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


class _Writable(Protocol):
    def write(self, data: Any, /) -> int: ...
    def flush(self) -> None: ...


class BadCheckpointFileError(Exception):
    """A file that cannot be a whole checkpoint; the message says what was found, without the file's name."""


class NotUsableError(BadCheckpointFileError):
    """A file that may be as it was written, and that this program makes no use of."""


class _ChecksummedWriter:
    """Passes strictly sequential writes on, and knows the CRC-32 of everything before each of them."""

    def __init__(self, file: _Writable) -> None:
        self._file = file
        self._crc = 0
        self._position = 0
        self.crc_before: dict[int, int] = {0: 0}

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._crc = zlib.crc32(view, self._crc)
        self._position += view.nbytes
        self.crc_before[self._position] = self._crc
        return view.nbytes

    def flush(self) -> None:
        self._file.flush()


def write_sealed(file: IO[bytes], save: Callable[[Any], None], record: dict[str, Any]) -> None:
    """Let `save` write a torch archive into the empty binary `file`, then add the record and the seal.

    `file` must be open for reading and writing, as "w+b" is. It is flushed, and not synced: that is the caller's part.
    """
    writer = _ChecksummedWriter(file)
    save(writer)
    file.flush()
    with zipfile.ZipFile(file, "a") as archive:
        directory_start = archive.start_dir
        top = archive.namelist()[0].split("/", 1)[0]
        entry = zipfile.ZipInfo(f"{top}/{RECORD_NAME}")  # of 1980, as torch's entries: same content, same bytes
        entry.external_attr = 0o600 << 16
        archive.writestr(entry, json.dumps(record, indent=1, allow_nan=False))
        archive.comment = _SEAL % 0
    file.seek(directory_start)
    crc = zlib.crc32(file.read()[:-_SEAL_BYTES], writer.crc_before[directory_start])
    file.seek(-_SEAL_BYTES, os.SEEK_END)
    file.write(_SEAL % crc)
    file.flush()


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the JSON record of a file, or None for a torch file that has none (written by another program).

    Reads some kilobytes at the end of the file, whatever its size, and so finds no damage elsewhere: see `broken_seal`.
    Raises BadCheckpointFileError where the file is cut short, is no torch file at all, or its record is damaged.
    """
    try:
        with path.open("rb", buffering=0) as file:  # a buffer would read more than is asked for
            return record_in(file, path.suffix)
    except OSError as error:
        raise BadCheckpointFileError(cannot_be_read(error)) from error


def cannot_be_read(error: OSError) -> str:
    """Say that a file cannot be read, in the system's words."""
    return f"it cannot be read ({error.strerror or error})"


def record_in(file: Readable, suffix: str) -> dict[str, Any] | None:
    """Return the JSON record in an open file whose name ends in `suffix`; as `read_record`, but raises OSError too."""
    try:
        record = _last_record(file)
        if record is not None:
            return record
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            top = names[0].split("/", 1)[0] if names else ""
            if f"{top}/{RECORD_NAME}" in names:
                if archive.getinfo(f"{top}/{RECORD_NAME}").file_size > _RECORD_LIMIT_BYTES:
                    raise BadCheckpointFileError("its record is larger than any that bonafide writes")
                record = json.loads(archive.read(f"{top}/{RECORD_NAME}"))
                if not isinstance(record, dict):
                    raise BadCheckpointFileError("its record is not a JSON object")
                return record
            if f"{top}/data.pkl" in names:
                return None
            raise BadCheckpointFileError("it is a zip file, and not one that torch wrote")
    except zipfile.BadZipFile as error:
        _refuse_unless_known(file, suffix, str(error))
        return None
    except BAD_ENTRY as error:
        raise BadCheckpointFileError(f"its record cannot be read ({error})") from error


def _last_record(file: Readable) -> dict[str, Any] | None:
    """Return the record of a file as `write_sealed` leaves it, or None for zipfile to judge.

    The record is the last entry of such a file, so the hundreds of tensors before it need not be listed.
    """
    entry = read_last_entry(file, _SEAL_BYTES, _RECORD_LIMIT_BYTES)
    if entry is None or entry[0].count("/") != 1 or not entry[0].endswith(f"/{RECORD_NAME}"):
        return None
    record = json.loads(entry[1])
    return record if isinstance(record, dict) else None


def _refuse_unless_known(file: Readable, suffix: str, complaint: str) -> None:
    """Raise for everything that is no zip file, but for safetensors and what torch wrote before version 1.6."""
    if suffix == SAFETENSORS_SUFFIX:
        try:
            header_in(file)
        except BadSafetensorsError as error:
            raise BadCheckpointFileError(str(error)) from error
        return
    file.seek(0)
    start = file.read(len(_OLD_TORCH))
    foreign = _other_format(start)
    if foreign:
        raise NotUsableError(foreign)
    if start[:2] == b"\x80\x02":
        return
    if start[:4] == b"PK\x03\x04":
        raise BadCheckpointFileError(f"it was cut short or hit by a bad block ({complaint})")
    if not start:
        raise BadCheckpointFileError("it is empty")
    raise BadCheckpointFileError(f"it is not a checkpoint file ({complaint})")


def _other_format(start: bytes) -> str | None:
    """Say why a gzipped file or a plain pickle is not read, judging by its first bytes; None for any other file."""
    if start.startswith(b"\x1f\x8b"):
        return (
            "it is compressed with gzip, and what is inside may run code when it is unpickled: load it with the "
            "program that wrote it, save its state dict with torch.save and pass that file"
        )
    if start[:1] == b"\x80" and start[1:2] in _PICKLE_PROTOCOLS and not _OLD_TORCH.startswith(start):
        return (
            "it is a plain pickle and not a file of torch.save: loading it could run code, so it is refused. If you "
            "trust it, load it with the program that wrote it, save its state dict with torch.save and pass that file"
        )
    return None


def broken_seal(path: Path) -> str | None:
    """Read the whole file, holding none of it, and return what is wrong with it, or None if every bit is as written.

    Files of other programs carry no seal; for those the CRC-32 of each zip entry is checked. What is to be loaded is
    opened by `verified_file` instead, which keeps what it reads.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return broken_seal_of(file) if has_seal(file) else broken_entry(file, path.suffix)
    except OSError as error:
        return cannot_be_read(error)


def broken_seal_of(file: Readable) -> str | None:
    """Read an open file of ours from its start and return what is wrong with it, or None; raises OSError."""
    if not has_seal(file):
        return "its seal is missing or damaged"
    return seal_complaint(_crc32_of(file, sealed_bytes(file)), file.read())


def has_seal(file: Readable) -> bool:
    """Whether an open file ends as ours do."""
    file.seek(sealed_bytes(file))
    return file.read().startswith(_SEAL.split(b"%", 1)[0])


def sealed_bytes(file: Readable) -> int:
    """Return how many bytes of an open file lie before its seal."""
    return max(0, file.seek(0, os.SEEK_END) - _SEAL_BYTES)


def seal_complaint(crc: int, seal: bytes) -> str | None:
    """Return what is wrong with a file whose bytes before the seal have this CRC-32, None for nothing."""
    found = _SEAL % crc
    if found == seal:
        return None
    return f"its checksum does not match (bytes were changed after it was written): {found[-8:].decode()} found, " + (
        f"{seal[-8:].decode(errors='replace')} sealed"
    )


def _crc32_of(file: Readable, size: int) -> int:
    file.seek(0)
    crc, left = 0, size
    while left:
        chunk = file.read(min(_CHUNK_BYTES, left))
        if not chunk:
            raise OSError("the file became shorter while it was read")
        crc = zlib.crc32(chunk, crc)
        left -= len(chunk)
    return crc


def broken_entry(file: Readable, suffix: str) -> str | None:
    """Return what is wrong with an open file without our seal, as far as that shows; one with our record must have one.

    Raises OSError.
    """
    try:
        if record_in(file, suffix) is not None:
            return "its seal is missing or damaged"
        if not zipfile.is_zipfile(file):
            return None  # the old pickle format has no checksum at all
        with zipfile.ZipFile(file) as archive:
            entry = archive.testzip()
    except BadCheckpointFileError as error:
        return str(error)
    except (zipfile.BadZipFile, *BAD_ENTRY) as error:
        return f"it is damaged ({error})"
    return f"its entry {entry} is damaged" if entry else None
