"""How many files this process may open beside those that are open, once it has asked the system for more."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_OPEN = Path("/dev/fd")


def room_for_open_files(wanted: int) -> int:
    """Return how many more files may be opened, `wanted` at least if the hard limit (`ulimit -Hn`) allows so many.

    The soft limit is raised as far as that needs, which any process may do for itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir(_OPEN)) - 1 if _OPEN.exists() else 0  # noqa: PTH208  (one is that of the listing itself)
    needed = open_now + wanted
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        if most > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return wanted if soft == resource.RLIM_INFINITY else max(0, soft - open_now)


def most_open_files() -> int:
    """Return the soft limit, what `ulimit -n` shows."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
