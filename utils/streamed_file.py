"""Writes a large file from its start to its end at the speed of the disk, and hardly takes the processor.

    with atomic_write(path) as file, StreamedFile(file) as streamed:
        streamed.write(...)
        streamed.flush()

What is written is gathered in three buffers, which a thread of its own writes with O_DIRECT: past the page cache, whose
allocation and copy cost several times what the disk takes while other work has the processors, and which then holds
what others read still (a corpus). A file of less than a buffer is written at once, as any other.

Where the file system has no O_DIRECT, or refuses a write in the middle (EINVAL), that write and the rest go through the
page cache; posix_fadvise(POSIX_FADV_DONTNEED) begins their write-back at once, as sync_file_range(2) would, which
Python does not have: so little is left for the fsync. The last bytes, of less than a block, always go through the
cache. Room is not reserved: fallocate(2) made no steady difference on ext4, and others lack it.

Nothing here is durable: fsync is the part of whoever opened the file.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np

from utils.direct_io import BLOCK_BYTES, BUFFER_BYTES, REFUSED, aligned_memory, set_direct

_BUFFERS = 3
_COPIED_AT_ONCE_BYTES = 1 << 20


class StreamedFile:
    """An empty, open binary file that is written through this alone, by one thread, until `flush` was called.

    `check` is called before every few megabytes; an OSError that it raises ends the writing as one of the disk would.
    Left as a context manager, nothing writes any more: only then may the file be closed.
    """

    def __init__(self, file: BinaryIO, check: Callable[[], None] = lambda: None) -> None:
        self._descriptor = file.fileno()
        self._check = check
        memory = np.frombuffer(aligned_memory(_BUFFERS * BUFFER_BYTES), np.uint8)
        self._buffers = deque(memory.reshape(_BUFFERS, BUFFER_BYTES))
        self._gathered = 0
        self._position = 0
        self._is_direct = False
        self._failure: OSError | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._writes: deque[Future[None]] = deque()

    def __enter__(self) -> StreamedFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread:
            self._thread.shutdown(cancel_futures=True)
        self._set_direct(False)

    def write(self, data: Any) -> int:
        """Take bytes and return their number; raises what the disk says, if not now then at the next call."""
        source = np.asarray(memoryview(data).cast("B"))
        done = 0
        while done < source.size:
            self._check()
            count = min(source.size - done, BUFFER_BYTES - self._gathered, _COPIED_AT_ONCE_BYTES)
            # numpy copies with the interpreter free, as a memoryview does not
            np.copyto(self._buffers[0][self._gathered : self._gathered + count], source[done : done + count])
            self._gathered += count
            done += count
            if self._gathered == BUFFER_BYTES:
                self._hand_over()
        return done

    def flush(self) -> None:
        """Return when the kernel has all bytes; what comes after this is written through the page cache."""
        while self._writes:
            self._writes.popleft().result()
        self._put(self._buffers[0].data[: self._gathered])
        self._gathered = 0
        self._set_direct(False)

    def _hand_over(self) -> None:
        """Let the thread write the buffer that is full, and go on with one that it has written."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "writing")
            self._set_direct(True)
        full = self._buffers[0]
        try:
            self._writes.append(self._thread.submit(self._put, full.data))
        except RuntimeError:  # the interpreter ends: it finishes a save and starts nothing more; or no thread is free
            while self._writes:
                self._writes.popleft().result()
            self._thread.shutdown(cancel_futures=True)  # which holds a task that it could start no thread for
            self._put(full.data)
        self._buffers.rotate(-1)
        self._gathered = 0
        if len(self._writes) == _BUFFERS:
            self._writes.popleft().result()

    def _put(self, view: memoryview) -> None:
        """Write at the end of the file; the first error is that of all later calls."""
        if self._failure:
            raise self._failure
        try:
            whole = len(view) - len(view) % BLOCK_BYTES if self._is_direct else 0
            self._write_all(view[:whole])
            self._set_direct(self._is_direct and whole == len(view))
            self._write_all(view[whole:])
        except OSError as error:
            self._failure = error
            raise

    def _write_all(self, view: memoryview) -> None:
        while len(view):
            try:
                count = os.pwrite(self._descriptor, view, self._position)
            except OSError as error:
                if not self._is_direct or error.errno not in REFUSED:
                    raise
                self._set_direct(False)
                continue
            if not self._is_direct and self._thread:
                self._begin_write_back(count)
            self._position += count
            view = view[count:]

    def _begin_write_back(self, count: int) -> None:
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):
                os.posix_fadvise(self._descriptor, self._position, count, os.POSIX_FADV_DONTNEED)

    def _set_direct(self, wanted: bool) -> None:
        if wanted != self._is_direct:
            self._is_direct = set_direct(self._descriptor, wanted)
