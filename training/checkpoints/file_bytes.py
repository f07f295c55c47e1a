"""The bytes of a file, read once from one open handle with their CRC-32, and handed out from there.

They are held in memory, a chunk at a time given back while they are loaded, so that a file and its tensors are not both
there in full. A file that does not fit is not held: its chunks are read again from the same handle when they are asked
for, each against the CRC-32 that it had at first. Either way what is loaded is what was checked, whatever happens to
the file's name meanwhile. There is no memory map: a read error there would end the process by a signal.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import weakref
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_BYTES = 1 << 20  # small, since tensors of a few megabytes set whole chunks free
_CHUNKS_KEPT = 2  # of a file that is not held: where one tensor ends, the next begins


class FileBytes:
    """All bytes of an open file, read when this is made, which closes it when it is done; raises OSError.

    `status` is the file's own, of the handle that was read. `failure` says why bytes could not be had a second time:
    whoever has loaded from this must look, since a reader can only come to an early end. `is_spent` says that it was
    loaded.
    """

    def __init__(self, file: io.FileIO, *, held: bool) -> None:
        self._close = weakref.finalize(self, _let_go_of, file)
        self._descriptor = file.fileno()
        self.status = os.fstat(file.fileno())
        self.size = self.status.st_size
        self.is_held = held
        self.failure: str | None = None
        self.is_spent = False
        self._chunks: dict[int, bytes] = {}
        self._crc_before = [0]
        for index in range(-(-self.size // CHUNK_BYTES)):
            chunk = self._read_chunk(index)
            self._crc_before.append(zlib.crc32(chunk, self._crc_before[-1]))
            if held:
                self._chunks[index] = chunk
        if held:
            self._close()

    def _read_chunk(self, index: int) -> bytes:
        """Return one chunk from the disk, in as many reads as the system takes for it."""
        start = index * CHUNK_BYTES
        size = min(CHUNK_BYTES, self.size - start)
        parts: list[bytes] = []
        while size:
            part = os.pread(self._descriptor, size, start)
            if not part:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunk(self, index: int) -> bytes:
        """Return one chunk, the last one shorter; raises OSError where it is not what it was at first."""
        known = self._chunks.get(index)
        if known is not None:
            return known
        if not self._close.alive:
            raise RuntimeError("the bytes of this file were given back already: open the file again")
        found = self._read_chunk(index)
        if zlib.crc32(found, self._crc_before[index]) != self._crc_before[index + 1]:
            raise OSError(errno.EIO, "it was changed after it was checked")
        while len(self._chunks) >= _CHUNKS_KEPT:
            del self._chunks[next(iter(self._chunks))]
        self._chunks[index] = found
        return found

    def crc32(self, size: int) -> int:
        """Return the CRC-32 of the first `size` bytes."""
        index, rest = divmod(size, CHUNK_BYTES)
        return zlib.crc32(self.chunk(index)[:rest], self._crc_before[index]) if rest else self._crc_before[index]

    def sha256(self) -> str:
        """Return the SHA-256 of all bytes, in hexadecimal; raises OSError for a changed file that is not held."""
        digest = hashlib.sha256()
        for index in range(len(self._crc_before) - 1):
            digest.update(self.chunk(index))
        return digest.hexdigest()

    def reader(self) -> ByteReader:
        """Return a binary file over the bytes, for looking at them; `take` is for loading."""
        return ByteReader(self)

    def take(self) -> TakingReader:
        """Return a binary file that gives each chunk back once it was read in one go, for loading, which is done once.

        As a context manager it gives all of them back at its end. Raises RuntimeError the second time.
        """
        if self.is_spent:
            raise RuntimeError("this file was loaded already: what it held is given back")
        self.is_spent = True
        return TakingReader(self)

    def give_back(self, first: int, after: int) -> None:
        """Forget the chunks from `first` up to `after`."""
        for index in range(first, after):
            self._chunks.pop(index, None)

    def close(self) -> None:
        """Forget everything."""
        self._chunks.clear()
        self._close()


def _let_go_of(file: io.FileIO) -> None:
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
            try:
                part = memoryview(self._content.chunk(index))[offset : offset + wanted - done]
            except OSError as error:
                self._content.failure = f"it cannot be read ({error.strerror or error})"
                break
            target[done : done + len(part)] = part
            done += len(part)
        self._position = start + done
        return done


class TakingReader(ByteReader):
    """A reader for loading: a chunk that lies wholly inside one read is not needed again, and makes room at once.

    Only a tensor is read in one go of that size; the last chunk, of less, stays, since a zip file is looked into from
    its end, more than once.
    """

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as a ByteReader does, and give back the chunks that it had all of."""
        start = self._position
        done = super().readinto(buffer)
        self._content.give_back(-(-start // CHUNK_BYTES), (start + done) // CHUNK_BYTES)
        return done

    def close(self) -> None:
        """Give everything back."""
        if not self.closed:
            self._content.close()
        super().close()
