"""Opens a zip file whose list of entries is as long as a file of weights has one, and refuses any longer one."""

from __future__ import annotations

import zipfile
from typing import IO, Any, cast

from training.checkpoints.last_entry import Readable

MOST_BYTES = 1 << 24
"""Of the list of entries: some 100,000 tensors; zipfile reads it all at once, whatever its size."""


class _LimitedReads:
    """Passes everything on, and refuses to read more than MOST_BYTES in one go while `is_limited`."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self.is_limited = True

    def read(self, size: int = -1, /) -> bytes:
        if self.is_limited and size > MOST_BYTES:
            raise zipfile.BadZipFile(f"its list of entries has {size:,} bytes, more than any file of weights")
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def open_zip(file: Readable) -> zipfile.ZipFile:
    """Return the archive in an open file, for reading; raises what zipfile does, and BadZipFile for a long list."""
    limited = _LimitedReads(file)
    archive = zipfile.ZipFile(cast(IO[bytes], limited))
    limited.is_limited = False
    return archive
