"""Reading and writing of an open file past the page cache (O_DIRECT, open(2)), and the memory that this needs.

Past the cache costs a tenth of the processor time where files are large, and leaves there what others read still.
Places and sizes must be multiples of a block, but for the end of the file.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from contextlib import suppress

BUFFER_BYTES = 8 << 20
BLOCK_BYTES = 4096  # what O_DIRECT needs, at most, on the file systems that have it
REFUSED = {errno.EINVAL, errno.EOPNOTSUPP}
"""What a call fails with that the file system cannot do with O_DIRECT."""

_O_DIRECT = getattr(os, "O_DIRECT", 0)  # Linux


def set_direct(descriptor: int, wanted: bool) -> bool:
    """Go past the page cache from now on, or through it; return whether it is past it now.

    It is the same open file, whose locks stay: closing a second one would give them up (fcntl(2)).
    """
    if not _O_DIRECT:
        return False
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    with suppress(OSError):  # the file system cannot
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _O_DIRECT if wanted else flags & ~_O_DIRECT)
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & _O_DIRECT)


def aligned_memory(num_bytes: int) -> mmap.mmap:
    """Return memory that begins at a block, is touched as far as it is used, and is not passed on to forked children.

    (O_DIRECT and a fork in the middle of it are a known hazard, see open(2).)
    """
    memory = mmap.mmap(-1, num_bytes)
    if hasattr(mmap, "MADV_DONTFORK"):  # Linux
        memory.madvise(mmap.MADV_DONTFORK)
    return memory
