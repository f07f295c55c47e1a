"""The bytes of a file, read once from one open handle into memory that is used again, with their CRC-32.

Memory that a process touches for the first time costs ten times what reading it from the page cache and its CRC-32 do:
so a file of gigabytes is not held. When it is loaded, its chunks are read again from the same handle, straight to where
their values belong, and each against the CRC-32 that it had at first: what is loaded is what was checked, whatever
happens to the file's name meanwhile. A small file stays in memory as it was read. There is no memory map: a read error
there would end the process by a signal.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from training.checkpoints.crc32 import crc32

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_BYTES = 1 << 20
CHUNKS_KEPT = 16


class FileBytes:
    """All bytes of an open file, read when this is made, which closes it when it is done; raises OSError.

    `status` is the file's own, of the handle that was read. `failure` says why bytes could not be had a second time:
    whoever has loaded from this must look, since a reader can only come to an early end. `is_spent` says that it was
    loaded.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._close = weakref.finalize(self, _let_go_of, file)
        self._descriptor = file.fileno()
        self.status = os.fstat(file.fileno())
        self.size = self.status.st_size
        self.failure: str | None = None
        self.is_spent = False
        self._chunks: dict[int, bytes] = {}
        self._crc_before = [0]
        self._number = -(-self.size // CHUNK_BYTES)
        again = memoryview(bytearray(min(CHUNK_BYTES, self.size)))
        for index in range(self._number):
            chunk = again[: self._size_of(index)]
            self._read(index, chunk)
            self._crc_before.append(crc32(chunk, self._crc_before[-1]))
            if index >= self._number - CHUNKS_KEPT:
                self._chunks[index] = bytes(chunk)

    def _size_of(self, index: int) -> int:
        return min(CHUNK_BYTES, self.size - index * CHUNK_BYTES)

    def _read(self, index: int, target: memoryview) -> None:
        """Read one chunk from the disk, in as many reads as the system takes for it."""
        start = index * CHUNK_BYTES
        while target:
            count = os.preadv(self._descriptor, [target], start)
            if not count:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            start, target = start + count, target[count:]

    def chunk(self, index: int) -> bytes:
        """Return one chunk, the last one shorter; raises OSError where it is not what it was at first."""
        known = self._chunks.get(index)
        if known is not None:
            return known
        found = bytearray(self._size_of(index))
        self.read_chunk(index, memoryview(found))
        while len(self._chunks) >= CHUNKS_KEPT:
            del self._chunks[next(iter(self._chunks))]
        self._chunks[index] = bytes(found)
        return self._chunks[index]

    def read_chunk(self, index: int, target: memoryview) -> None:
        """Put one chunk into memory of its size; raises OSError where it is not what it was at first."""
        known = self._chunks.get(index)
        if known is not None:
            target[:] = known
            return
        if not self._close.alive:
            raise RuntimeError("the bytes of this file were given back already: open the file again")
        self._read(index, target)
        if crc32(target, self._crc_before[index]) != self._crc_before[index + 1]:
            raise OSError(errno.EIO, "it was changed after it was checked")

    def crc32(self, size: int) -> int:
        """Return the CRC-32 of the first `size` bytes."""
        index, rest = divmod(size, CHUNK_BYTES)
        return crc32(self.chunk(index)[:rest], self._crc_before[index]) if rest else self._crc_before[index]

    def sha256(self) -> str:
        """Return the SHA-256 of all bytes, in hexadecimal; raises OSError for a changed file."""
        digest, again = hashlib.sha256(), memoryview(bytearray(CHUNK_BYTES))
        for index in range(self._number):
            chunk = again[: self._size_of(index)]
            self.read_chunk(index, chunk)
            digest.update(chunk)
        return digest.hexdigest()

    def reader(self) -> ByteReader:
        """Return a binary file over the bytes, for looking at them; `take` is for loading."""
        return ByteReader(self)

    def take(self) -> TakingReader:
        """Return a binary file for loading, which is done once: at its end, as a context manager, all is given back.

        Raises RuntimeError the second time.
        """
        if self.is_spent:
            raise RuntimeError("this file was loaded already: what it held is given back")
        self.is_spent = True
        return TakingReader(self)

    def close(self) -> None:
        """Forget everything."""
        self._chunks.clear()
        self._close()


def _let_go_of(file: BinaryIO) -> None:
    """Close a file that was only read: what its disk says then changes nothing of that."""
    with suppress(OSError):
        file.close()


class ByteReader(io.RawIOBase):
    """A binary file over FileBytes, with the few methods that zipfile, pickle and torch read by."""

    def __init__(self, content: FileBytes) -> None:
        self._content = content
        self._position = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that any position can be gone to."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position; raises OSError for one before the start, as a file does."""
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._content.size}[whence]
        if position < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = position
        return position

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next `size` bytes, or all that are left."""
        left = max(0, self._content.size - self._position)
        wanted = bytearray(left if size is None or size < 0 else min(size, left))
        return bytes(memoryview(wanted)[: self.readinto(wanted)])

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as far as there are bytes, and return how many those are.

        An error while a file is read again ends it early and is noted: torch calls this from C++, where none may pass.
        """
        target = memoryview(buffer).cast("B")
        start, done = self._position, 0
        wanted = max(0, min(len(target), self._content.size - start))
        while done < wanted:
            index, offset = divmod(start + done, CHUNK_BYTES)
            count = min(CHUNK_BYTES - offset, wanted - done)
            part = target[done : done + count]
            try:
                if count == CHUNK_BYTES:
                    self._content.read_chunk(index, part)
                else:
                    part[:] = self._content.chunk(index)[offset : offset + count]
            except OSError as error:
                self._content.failure = f"it cannot be read ({error.strerror or error})"
                break
            done += count
        self._position = start + done
        return done


class TakingReader(ByteReader):
    """A reader for loading, which gives everything back when it is closed.

    `left_out` are offsets and sizes of what is not wanted: one read of exactly that leaves the memory as it is.
    """

    def __init__(self, content: FileBytes) -> None:
        super().__init__(content)
        self.left_out: Mapping[int, int] = {}

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as a ByteReader does, unless it is for what is left out."""
        size = memoryview(buffer).nbytes
        if size and self.left_out.get(self.tell()) == size:
            self.seek(size, os.SEEK_CUR)
            return size
        return super().readinto(buffer)

    def close(self) -> None:
        """Give everything back."""
        if not self.closed:
            self._content.close()
        super().close()
