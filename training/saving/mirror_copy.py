"""Makes a mirror what its run folder is: copies what is new, reads it back, and prunes by the same rule.

Invariants, each with its test in tests/test_mirror.py:

1. A file under its name in the mirror is complete, synced, and was read back
   (`test_a_copy_is_read_back_and_one_that_differs_gets_no_name`).
2. Nothing goes before the newest checkpoint is there (`test_the_mirror_is_pruned_by_the_rule_of_the_run_folder`).
3. What belongs to another run, or to another future of this one, is moved aside into the mirror's version_N, never
   deleted (`test_another_run_in_the_mirror_is_moved_aside`).
4. What the run folder has lost stays in the mirror (`test_what_the_run_folder_lost_stays_in_the_mirror`).

The run folder may change at any moment: a file that goes while it is copied is done without. Needs no torch.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from training.checkpoints.examined import WeightsFile
from training.checkpoints.file_format import SEAL_BYTES
from training.checkpoints.frozen_reference import FrozenFile
from training.checkpoints.history import Lineage
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.sealed_file import broken_seal, broken_seal_of
from training.runs.directory import CONFIG_NAME, REPORT_NAME, TRAINING_LOG_NAME, RunDirectory
from training.runs.known_files import KnownFiles
from training.runs.move_journal import MoveJournal
from training.runs.moving_aside import complete_interrupted_move
from training.runs.retention import RetentionPolicy, files_to_prune
from training.runs.survey import RunFolder, survey_folder, versions_in
from training.runs.trained_names import FILE_NAME as TRAINED_NAMES
from utils.atomic_files import atomic_write, fsync_folder, link_or_copy, remove_stray_temporaries
from utils.file_systems import free_bytes
from utils.regular_files import open_regular, read_regular
from utils.terminal_text import bytes_text

_BESIDE = (CONFIG_NAME, TRAINED_NAMES, TRAINING_LOG_NAME, REPORT_NAME)
_CHUNK_BYTES = 1 << 22
_Content = tuple[int, bytes]


class BadCopyError(OSError):
    """What was written into a mirror is not what is read back."""


@dataclass
class Copying:
    """How far the copy under way is: of which file, and of how many bytes how many are written."""

    name: str = ""
    bytes_done: int = 0
    bytes_in_all: int = 0

    @property
    def share(self) -> float:
        """Which part of it is written."""
        return self.bytes_done / self.bytes_in_all if self.bytes_in_all else 0.0


@dataclass
class MirrorFolder:
    """The mirror `folder` of the run folder `run`; `check` is called between two chunks and may raise OSError."""

    run: Path
    folder: Path
    policy: RetentionPolicy
    check: Callable[[], None] = lambda: None
    copying: Copying = field(default_factory=Copying)
    _known_in_run: KnownFiles = field(default_factory=KnownFiles)
    _known: KnownFiles = field(default_factory=KnownFiles)
    _read_back: set[tuple[str, _Content]] = field(default_factory=set)  # by this process: whole, under their names

    def bring_up_to_date(self) -> list[str]:
        """Copy what is new and prune; return what of the run folder could not be copied, and why.

        Raises OSError where the mirror refuses, and UserError where its past makes no sense.
        """
        complete_interrupted_move(RunDirectory(self.folder))
        remove_stray_temporaries(self.folder)
        found = survey_folder(self.run, self._known_in_run)
        newest = found.latest
        if newest is None:
            return []
        here = survey_folder(self.folder, self._known)
        if strange := strange_entries(here, newest.lineage):
            number = max((*versions_in(self.run), *(number + 1 for number in versions_in(self.folder)), 1))
            MoveJournal(number, strange, ()).write(self.folder)
            complete_interrupted_move(RunDirectory(self.folder))
            here = survey_folder(self.folder, self._known)
        is_ahead = here.latest is not None and here.latest.position > newest.position
        paths = [path for path in _in_order(found, newest) if not (is_ahead and path in _second_names(found))]
        complaints = [complaint for path in paths if (complaint := self._take(path))]
        if not is_ahead:  # else another future begins, at whose first save what is further here moves aside, whole
            self._prune(newest)
        copy_beside(self.run, self.folder)
        return complaints

    def _take(self, source: Path) -> str:
        """Give a checkpoint its name here; return why not, where it is damaged."""
        target, content = self.folder / source.name, content_of(source)
        if content is None or content == content_of(target):
            return ""
        try:
            twin = self._twin(source, content)
            if twin:
                link_or_copy(twin, target)
            else:
                copy_verified(source, target, self.check, self.copying)
            self._read_back.add((target.name, content))
        except BadCopyError:
            damage = broken_seal(source)
            if damage is None:
                raise
            return f"{source} is not mirrored: {damage}"
        except FileNotFoundError:
            if source.exists():
                raise
        return ""

    def _twin(self, source: Path, content: _Content) -> Path | None:
        """Return the whole file here that a second name in the run folder is a link to, if it is one."""
        if source.stat().st_nlink == 1:
            return None
        others = (path for path in self.folder.iterdir() if path.is_file() and not path.name.startswith("."))
        same = (path for path in others if path.name != source.name and content_of(path) == content)
        return next((path for path in same if self._is_whole(path, content)), None)

    def _is_whole(self, path: Path, content: _Content) -> bool:
        if (path.name, content) not in self._read_back and broken_seal(path) is None:
            self._read_back.add((path.name, content))
        return (path.name, content) in self._read_back

    def _prune(self, newest: CheckpointRecord) -> None:
        """Delete what the policy does not keep, once every byte of the newest checkpoint was read back here."""
        here = survey_folder(self.folder, self._known)
        gone = files_to_prune(here.checkpoints, newest.lineage, self.policy, newest.best)
        last = here.last or here.latest
        if not gone or last is None or last.position < newest.position:
            return
        content = content_of(last.path)
        if content is None or not self._is_whole(last.path, content):
            return
        for path in gone:
            path.unlink(missing_ok=True)
        fsync_folder(self.folder)


def strange_entries(here: RunFolder, lineage: Lineage) -> tuple[str, ...]:
    """Return the names in a mirror that belong to another run than that of `lineage`; all of them if no file does."""
    records = [*here.all_checkpoints, *(file.record for file in here.weights if file.record)]
    if not records:
        return ()
    others = [record for record in records if not record.belongs_to(lineage)]
    if len(others) == len(records):
        return here.entries
    return tuple(record.path.name for record in others)


def copy_verified(source: Path, target: Path, check: Callable[[], None], copying: Copying) -> None:
    """Copy a sealed file such that `target` is whole and on disk, or what it was.

    Every byte is read back before the copy gets its name. Raises BadCopyError where one is not as the seal has it, in
    the copy or in the source, and OSError; too little room is noticed before the first byte.
    """
    with open_regular(source) as file:
        size = os.fstat(file.fileno()).st_size
        free = free_bytes(target.parent)
        if free is not None and free < size:
            lack = f"it needs {bytes_text(size)} and {bytes_text(free)} are free"
            raise OSError(errno.ENOSPC, lack, str(target))
        copying.name, copying.bytes_done, copying.bytes_in_all = source.name, 0, size
        with atomic_write(target) as copy:
            while chunk := file.read(_CHUNK_BYTES):
                check()
                copy.write(chunk)
                copying.bytes_done += len(chunk)
            copy.flush()
            os.fsync(copy.fileno())
            _forget(copy.fileno())  # so that it is read from the disk, and training keeps its own files in memory
            if damage := broken_seal_of(copy):
                raise BadCopyError(errno.EIO, damage, str(target))


def copy_beside(source: Path, target: Path, *, only_missing: bool = False) -> None:
    """Copy the small files of a run that are not the same in another folder, read back; raises OSError."""
    for name in _BESIDE:
        try:
            content = read_regular(source / name)
        except FileNotFoundError:
            continue
        path = target / name
        if path.exists() and (only_missing or read_regular(path) == content):
            continue
        with atomic_write(path) as file:
            file.write(content)
        if read_regular(path) != content:
            raise BadCopyError(errno.EIO, "what is read back is not what was written", str(path))


def _forget(descriptor: int) -> None:
    with suppress(OSError, AttributeError):  # where there is no such call, what is read back may come from memory
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def content_of(path: Path) -> _Content | None:
    """Return what tells the content of a sealed file from that of another one, its size and seal; None for no file."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - SEAL_BYTES))
            return size, file.read()
    except FileNotFoundError:
        return None


def _in_order(found: RunFolder, newest: CheckpointRecord) -> Iterator[Path]:
    """Yield the files of a run in the order in which they are needed: what others need first, then the newest one."""
    frozen: list[FrozenFile] = list(found.frozen)
    own = sorted(found.checkpoints, key=lambda record: record.position, reverse=True)
    paths = [file.path for file in frozen] + [newest.path, *_second_names(found)]
    yield from dict.fromkeys([*paths, *(record.path for record in own)])


def _second_names(found: RunFolder) -> list[Path]:
    """Return the files whose names pass on from one checkpoint to the next."""
    weights: list[WeightsFile] = [file for file in found.weights if file.is_best]
    return [record.path for record in (found.last, found.best) if record] + [file.path for file in weights]
