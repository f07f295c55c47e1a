"""Asks something of many files at a time: a file server takes as long to answer one question as to answer sixteen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from utils.waiting import Helpers, wait_for

# Each waits for the answer of a file server, most of the time.
_THREADS = 16
_Answer = TypeVar("_Answer")


def ask_all(paths: Sequence[Path], question: Callable[[Path], _Answer]) -> list[_Answer]:
    """Return the answer for each path, in their order; an exception of `question` is raised here."""

    def ask(some: Iterable[Path], _: int) -> list[_Answer]:
        return [question(path) for path in some]

    step = max(1, -(-len(paths) // _THREADS))
    helpers = Helpers(_THREADS, "asking")
    try:
        parts = [helpers.do(partial(ask, paths[first : first + step])) for first in range(0, len(paths), step)]
        told = f"the file system to answer for {len(paths):,} files such as {paths[0]}" if paths else ""
        return [answer for part in parts for answer in wait_for(part, lambda: told)]
    finally:
        helpers.close()
