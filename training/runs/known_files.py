"""Examines the checkpoints of a folder again and again, and opens those that are as they were no second time."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from training.checkpoints.examined import UnusableFile, WeightsFile, examine
from training.checkpoints.frozen_reference import FrozenFile
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.sealed_file import cannot_be_read

FileFacts: TypeAlias = CheckpointRecord | WeightsFile | FrozenFile | UnusableFile
_Stamp: TypeAlias = tuple[int, ...]
_NOWHERE: _Stamp = ()

SETTLED_NS = 2_000_000_000
"""A file that changed a shorter time ago is read again: clocks of file systems are coarse, and a write within the same
tick would not show."""


class KnownFiles:
    """What one thread has read of the files of one folder; a file is as it was where its inode, size and times are.

    The frozen weights that a checkpoint needs must lie beside it and be as they were, too. Links, and what cannot be
    used, are looked at each time.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[_Stamp, _Stamp | None, FileFacts]] = {}

    def examined(self, paths: Iterable[Path]) -> list[FileFacts]:
        """Examine files; one that has several names here, as the best checkpoint does, is read once."""
        before, self._known = self._known, {}
        here: dict[tuple[int, int], FileFacts] = {}
        found: list[FileFacts] = []
        for path in paths:
            try:
                status = path.lstat()  # a link is a file of its own, since its frozen weights may lie elsewhere
            except OSError as error:
                found.append(UnusableFile(path, cannot_be_read(error)))
                continue
            number = status.st_dev, status.st_ino
            stamp, frozen, facts = before.get(number, (None, None, None))
            if facts is None or stamp != _stamp(status) or frozen != _stamp_of_frozen(path, facts):
                facts = here.get(number) or examine(path)
            here[number] = facts = facts if facts.path == path else replace(facts, path=path)
            found.append(facts)
            if _can_be_known(facts, status):
                self._known[number] = _stamp(status), _stamp_of_frozen(path, facts), facts
        return found


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _stamp_of_frozen(path: Path, facts: FileFacts) -> _Stamp | None:
    """Return what tells the frozen weights beside a checkpoint from others; None where it needs none."""
    if not isinstance(facts, CheckpointRecord) or facts.frozen is None:
        return None
    try:
        return _stamp((path.parent / facts.frozen.file).stat())
    except OSError:
        return _NOWHERE


def _can_be_known(facts: FileFacts, status: os.stat_result) -> bool:
    is_settled = max(status.st_mtime_ns, status.st_ctime_ns) + SETTLED_NS < time.time_ns()
    return is_settled and stat.S_ISREG(status.st_mode) and not isinstance(facts, UnusableFile)
