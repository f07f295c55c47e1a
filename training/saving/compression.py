"""Makes old checkpoints smaller: the same archive with deflated entries, which every reader takes as it is.

Lossless, and no format of its own: torch.load, listing, validation and resuming read such a file like any other, record
and seal included. `torch.load(mmap=True)` is the exception, and this program never uses it: it takes the bytes of an
entry as they lie, and so may give wrong weights without a word.
A kill or a full disk at any instant leaves the old file (`utils.atomic_files.atomic_write`), and the new one replaces
it only after all of its content was read back and compared.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.history import Lineage
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.sealed_file import BAD_ENTRY, RECORD_NAME, broken_seal_of, read_record, write_sealed
from training.runs.retention import own_records
from utils.atomic_files import atomic_write, disk_error_behind
from utils.regular_files import open_regular

_LEVEL = 1  # weights hardly shrink further, and 9 takes several times as long
_BUFFER_BYTES = 1 << 22
_ZIP64_FROM_BYTES = 1 << 30  # early enough for whatever deflate may add
_METHOD_AT = 8  # of the first entry, in its local header at the start of the file (PKWARE APPNOTE 6.3.3, section 4.3.7)


def files_to_compress(records: Iterable[CheckpointRecord], lineage: Lineage, after: int) -> list[Path]:
    """Return the files of this run with at least `after` newer ones of their kind, oldest first.

    Saves by time are none of them: they go when two newer ones are there.
    Whether a file is compressed already, or has a second name, is for `compress_file` to find out.
    """
    own = [record for record in own_records(records, lineage) if not record.saved_by_time]
    old = {r.path for kind in (Kind.EPOCH, Kind.STEP) for r in [r for r in own if r.kind is kind][:-after]}
    return [record.path for record in own if record.path in old]


def compress_file(path: Path, check: Callable[[], None] = lambda: None) -> int:
    """Deflate one checkpoint of ours and return the bytes saved, below 0 where its content did not shrink.

    `check` is called every few megabytes; an OSError that it raises ends the work as one of the disk would.

    Returns 0 and changes nothing where the file is compressed already, has a second name (that would still be the old,
    large file), is a symbolic link or was not written by bonafide. Its time of change stays: listing goes by it. Takes
    the speed of zlib, some 50 MB/s. Raises OSError where the disk refuses, and BadCheckpointFileError where the file is
    damaged: a new seal must not make damage look whole. In both cases the file is as it was.
    """
    status = path.lstat()
    if path.is_symlink() or status.st_nlink > 1 or _is_compressed(path):
        return 0
    record = read_record(path)
    if record is None:
        return 0
    try:
        with open_regular(path) as old_file:
            _refuse_damage(broken_seal_of(old_file))
            with zipfile.ZipFile(old_file) as old, atomic_write(path) as new_file:
                write_sealed(new_file, lambda writer: _deflate(old, writer, check), record)
                _refuse_difference(old, new_file, record)
                new_bytes = new_file.seek(0, os.SEEK_END)
                os.utime(new_file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    except (zipfile.BadZipFile, *BAD_ENTRY) as error:
        raise disk_error_behind(error) or BadCheckpointFileError(f"it cannot be compressed ({error})") from error
    return status.st_size - new_bytes


def _is_compressed(path: Path) -> bool:
    with open_regular(path) as file:
        start = file.read(_METHOD_AT + 2)
    return int.from_bytes(start[_METHOD_AT:], "little") == zipfile.ZIP_DEFLATED


def _deflate(old: zipfile.ZipFile, writer: Any, check: Callable[[], None]) -> None:
    """Copy all entries but the record; reading one to its end checks its CRC-32."""
    with zipfile.ZipFile(writer, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as new:
        for entry in _content_of(old):
            is_large = entry.file_size >= _ZIP64_FROM_BYTES
            with old.open(entry) as source, new.open(entry.filename, "w", force_zip64=is_large) as target:
                while block := source.read(_BUFFER_BYTES):
                    check()
                    target.write(block)


def _content_of(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the entries that torch wrote; the last one is the record."""
    *content, last = archive.infolist()
    if not last.filename.endswith(f"/{RECORD_NAME}"):
        raise BadCheckpointFileError("its record is not its last entry")
    return content


def _refuse_difference(old: zipfile.ZipFile, new_file: IO[bytes], record: dict[str, Any]) -> None:
    """Read back all that was written: the seal, the record, and every entry against the old one's CRC-32 and size."""
    _refuse_damage(broken_seal_of(new_file))
    with zipfile.ZipFile(new_file) as new:
        damaged = new.testzip()
        if damaged:
            raise BadCheckpointFileError(f"compressed, its entry {damaged} was damaged: the file is left as it was")
        facts = [[(e.filename, e.file_size, e.CRC) for e in _content_of(archive)] for archive in (old, new)]
        if facts[0] != facts[1] or json.loads(new.read(new.infolist()[-1])) != record:
            raise BadCheckpointFileError("compressed, its content would differ: the file is left as it was")


def _refuse_damage(complaint: str | None) -> None:
    if complaint:
        raise BadCheckpointFileError(complaint)
