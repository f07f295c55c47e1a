"""One process writes in a run folder: a lock that a dead process cannot hold."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, or raise UserError that names the host and process which hold it.

    A POSIX record lock: the kernel drops it when the process dies, however it dies, forked data loader workers do not
    inherit it, and NFS servers know it. The file itself stays; it says who held the lock last.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"another process trains in {path.parent} ({holder}): wait for it, stop it, "
                "or name this run differently with --comment"
            ) from error
        file.truncate(0)
        file.write(f"host {socket.gethostname()}, process {os.getpid()}\n")
        file.flush()
        yield
