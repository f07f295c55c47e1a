"""How much memory this process may still take before the machine, or the container it is in, runs out."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_memory_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Return what Linux can give without swapping, or what the container's limit leaves if that is less; else None.

    Sources: `MemAvailable` of proc(5); `memory.max`, `memory.current` and `memory.stat` of the kernel's
    admin-guide/cgroup-v2.rst. Files that were read or written count as used there and are given back when needed.
    """
    if not meminfo.exists():
        return None
    free = 1024 * _number_in(meminfo, "MemAvailable:")
    limit = cgroup / "memory.max"
    if not limit.exists() or limit.read_text() == "max\n":
        return free
    used = int((cgroup / "memory.current").read_text()) - _number_in(cgroup / "memory.stat", "inactive_file")
    return max(0, min(free, int(limit.read_text()) - used))


def _number_in(path: Path, key: str) -> int:
    lines = (line.split() for line in path.read_text().splitlines())
    return next(int(words[1]) for words in lines if words[0] == key)
