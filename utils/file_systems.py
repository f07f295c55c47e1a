"""What the file system of a folder has room for and can do, found by asking and by trying."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from utils.atomic_files import HARD_LINK_REFUSED, TEMPORARY_PREFIX, fsync_folder


def free_bytes(folder: Path) -> int | None:
    """Return how many bytes this user can still write in `folder`, or None where the file system does not say.

    Root may also use what ext4 and others keep back for it. Some file systems report a size of 0 (network and FUSE
    ones, a tmpfs without a limit): that is no answer. Quotas of one user are not seen here.
    """
    try:
        found = os.statvfs(folder)
    except OSError:  # not supported, or the folder is gone: writing tells which
        return None
    if not found.f_blocks:
        return None
    return found.f_frsize * (found.f_bavail if os.geteuid() else found.f_bfree)


def limits_of(folder: Path) -> list[str]:
    """Return what the file system of `folder` cannot do and what follows, a sentence each; leaves nothing behind.

    It is tried with an empty file. Call it once, where a run begins. Raises OSError where not even that can be written.
    """
    limits = []
    if not _hard_links_work(folder):
        limits.append(f"{folder}: no hard links here, so the best and last checkpoints are copies and take room")
    if not fsync_folder(folder):
        limits.append(
            f"{folder}: folders cannot be synced here, so a power cut may take the newest file names with it; "
            "the files themselves are synced"
        )
    return limits


def _hard_links_work(folder: Path) -> bool:
    first, second = (folder / f"{TEMPORARY_PREFIX}link-{name}-{os.getpid()}" for name in ("from", "to"))
    try:
        first.touch()
        second.hardlink_to(first)
    except OSError as error:
        if error.errno in HARD_LINK_REFUSED:
            return False
        raise
    finally:
        for path in (first, second):
            with suppress(OSError):
                path.unlink()
    return True
