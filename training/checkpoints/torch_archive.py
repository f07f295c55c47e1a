"""Writes the archives of torch.save faster than it does itself: the checksum of each entry is filled in on its way.

torch looks at every byte with the interpreter taken, and at a quarter of the speed of `crc32`. With its checksums off
(`torch.serialization.set_crc32_options`) it writes zeros in their place: once behind an entry's content, in a data
descriptor, and once in the directory at the end (PKWARE APPNOTE 6.3.3, sections 4.3.7, 4.3.9 and 4.3.12). Both come
after the content, so nothing has to be changed that was written. The file is as torch writes it with checksums.

Tensors of a GPU are written as tensors in memory are: torch notes with each of them where it was, and without that the
file would load only where there is such a GPU, or with `map_location`.

How torch lays archives out is its own affair: this is tried with a few values before it is relied on, and torch fills
in its checksums itself where it does not hold (`_can_be_filled_in`).
"""

from __future__ import annotations

import enum
import functools
import io
import struct
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import torch

from training.checkpoints.crc32 import combined, crc32
from training.checkpoints.sealed_file import BAD_ENTRY, SequentialWriter

_LOCAL = struct.Struct("<4s5H3L2H")
_IN_DIRECTORY = struct.Struct("<4s6H3L5H2L")
_DESCRIPTORS = {16: struct.Struct("<4s3L"), 24: struct.Struct("<4sL2Q")}
_HAS_DESCRIPTOR = 8
_CRC_IN_DESCRIPTOR, _CRC_IN_DIRECTORY = 4, 16
_LOOKED_AT_ONCE_BYTES = 1 << 20  # what stays in the processor's cache until it is copied


def save_archive(value: Any, writer: SequentialWriter) -> None:
    """Write what `torch.save(value, ...)` does of tensors on the CPU, but for the number that tells two archives apart.

    That number (`.data/serialization_id`) is made of the checksums that torch made: nothing reads it.
    """
    with _as_on_cpu():
        if not _can_be_filled_in():
            torch.save(value, cast(IO[bytes], writer))  # it needs `write` and `flush` only
            return
        with _without_checksums():
            torch.save(value, cast(IO[bytes], _Filling(writer)))


_THREAD = threading.local()


def _tag(storage: Any) -> str | None:
    """Return where a storage is said to be, None to leave that to torch."""
    return "cpu" if getattr(_THREAD, "tags_as_on_cpu", False) and storage.device.type == "cuda" else None


torch.serialization.register_package(0, _tag, lambda *_: None)  # before torch's own, which begin at 10


@contextmanager
def _as_on_cpu() -> Iterator[None]:
    """Let torch.save note of every tensor that it was on the CPU, in this thread."""
    _THREAD.tags_as_on_cpu = True
    try:
        yield
    finally:
        _THREAD.tags_as_on_cpu = False


@contextmanager
def _without_checksums() -> Iterator[None]:
    """Let torch.save leave checksums out: in this thread alone where torch has settings of a thread, as 2.14 does."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


class _Next(enum.Enum):
    """What the next write is of."""

    HEADER = enum.auto()
    """An entry's header, or the directory."""
    NAME = enum.auto()
    """The name of an entry and its padding."""
    CONTENT = enum.auto()
    """The content, or the data descriptor after it."""
    END = enum.auto()
    """The ends after the directory."""


class _Filling:
    """Passes the writes of torch.save on, with checksums in them; raises BadZipFile for an archive of other layout."""

    def __init__(self, writer: SequentialWriter) -> None:
        self._writer = writer
        self._next = _Next.HEADER
        self._flags = self._before_content = self._content_bytes = self._crc = 0
        self._name = bytearray()
        self._entries: list[tuple[bytes, int]] = []

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        match self._next:
            case _Next.HEADER if bytes(view[:4]) == b"PK\1\2":
                view = self._filled_in_directory(view)
                self._next = _Next.END
            case _Next.HEADER:
                self._begin_entry(view)
            case _Next.NAME:
                self._name += view
                self._before_content -= view.nbytes
                self._require(self._before_content >= 0)
                if not self._before_content:
                    self._next = _Next.CONTENT
                    if not self._flags & _HAS_DESCRIPTOR:  # an empty one
                        self._end_entry()
            case _Next.CONTENT if self._is_descriptor(view):
                view = self._filled_in(view)
                self._end_entry()
            case _Next.CONTENT:
                self._pass_on_content(view)
                return view.nbytes
        return self._writer.write(view)

    def flush(self) -> None:
        self._writer.flush()

    def _begin_entry(self, view: memoryview) -> None:
        self._require(view.nbytes == _LOCAL.size and bytes(view[:4]) == b"PK\3\4")
        fields = _LOCAL.unpack(view)
        self._flags, method, sizes, lengths = fields[2], fields[3], fields[6:9], fields[9:11]
        self._require(method == 0 and sizes == (0, 0, 0))
        self._before_content, self._content_bytes, self._crc = sum(lengths), 0, 0
        self._name = bytearray()
        self._name_bytes = lengths[0]
        self._next = _Next.NAME

    def _is_descriptor(self, view: memoryview) -> bool:
        layout = _DESCRIPTORS.get(view.nbytes)
        return (
            layout is not None
            and self._content_bytes > 0
            and layout.unpack(view) == (b"PK\7\x08", 0, self._content_bytes, self._content_bytes)
        )

    def _filled_in(self, view: memoryview) -> memoryview:
        filled_in = bytearray(view)
        struct.pack_into("<L", filled_in, _CRC_IN_DESCRIPTOR, self._crc)
        return memoryview(filled_in)

    def _end_entry(self) -> None:
        self._entries.append((bytes(self._name[: self._name_bytes]), self._crc))
        self._next = _Next.HEADER

    def _pass_on_content(self, view: memoryview) -> None:
        for start in range(0, view.nbytes, _LOOKED_AT_ONCE_BYTES):
            part = view[start : start + _LOOKED_AT_ONCE_BYTES]
            crc = crc32(part)
            self._crc = combined(self._crc, crc, part.nbytes)
            self._writer.write_known(part, crc)
        self._content_bytes += view.nbytes

    def _filled_in_directory(self, view: memoryview) -> memoryview:
        filled_in, at = bytearray(view), 0
        for name, crc in self._entries:
            self._require(at + _IN_DIRECTORY.size <= len(filled_in))
            fields = _IN_DIRECTORY.unpack_from(filled_in, at)
            name_at = at + _IN_DIRECTORY.size
            self._require(fields[0] == b"PK\1\2" and filled_in[name_at : name_at + fields[10]] == name)
            struct.pack_into("<L", filled_in, at + _CRC_IN_DIRECTORY, crc)
            at = name_at + sum(fields[10:13])
        self._require(at == len(filled_in))
        return memoryview(filled_in)

    @staticmethod
    def _require(is_so: bool) -> None:
        if not is_so:
            raise zipfile.BadZipFile("torch lays its archives out in a way that is not known here")


@functools.cache
def _can_be_filled_in() -> bool:
    """Whether torch lays archives out as this file expects: tried once, in memory, with tensors of several sizes."""
    archive = io.BytesIO()
    values = {"many": torch.arange(1000), "one": torch.ones(1), "none": torch.empty(0), "plain": "text"}
    try:
        with _without_checksums():
            writer = SequentialWriter(archive)
            torch.save(values, cast(IO[bytes], _Filling(writer)))
        archive.write(writer.held)
        with zipfile.ZipFile(archive) as written:
            return written.testzip() is None and all(entry.CRC or not entry.file_size for entry in written.infolist())
    except (zipfile.BadZipFile, *BAD_ENTRY):
        return False
