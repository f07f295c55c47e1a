"""Free memory as the kernel tells it, from files written as it writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.free_memory import free_memory_bytes

MEMINFO = "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    4000000 kB\n"
STAT = "anon 1000000000\nfile 900000000\ninactive_file 800000000\n"


@pytest.mark.parametrize(
    ("limit", "used", "free", "why"),
    [
        (None, 0, 4_096_000_000, "no container: what the machine has available"),
        ("max", 2_000_000_000, 4_096_000_000, "a container without a limit"),
        ("3000000000", 2_000_000_000, 1_800_000_000, "the limit less what is used, but files can be given back"),
        ("9000000000", 2_000_000_000, 4_096_000_000, "a limit above what the machine has"),
        ("1000000000", 2_000_000_000, 0, "a limit that was lowered below what is used"),
    ],
)
def test_the_lesser_of_machine_and_container_counts(
    tmp_path: Path, limit: str | None, used: int, free: int, why: str
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(MEMINFO)
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit + "\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        (tmp_path / "memory.stat").write_text(STAT)
    assert free_memory_bytes(meminfo, tmp_path) == free, why


def test_where_the_kernel_does_not_tell_nothing_is_claimed(tmp_path: Path) -> None:
    assert free_memory_bytes(tmp_path / "meminfo", tmp_path) is None
