"""What is on disk, as facts: looks at run folders, changes nothing, needs no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.checkpoints.examined import UnusableFile, WeightsFile, examine
from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.frozen_reference import FrozenFile
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.verified_file import KnownFrozen, VerifiedFile, verify
from training.runs.directory import (
    LOCK_NAME,
    MOVE_JOURNAL_NAME,
    REPORT_NAME,
    RUNS_ROOT,
    TRAINING_LOG_NAME,
    logs_folder_of,
    version_number,
)
from training.runs.known_files import KnownFiles
from training.runs.move_journal import CANNOT_BE_USED, MoveJournal, read_move_journal
from training.settings.name_template import CHECKPOINT_SUFFIXES, LAST_CHECKPOINT
from utils.atomic_files import TEMPORARY_PREFIX
from utils.errors import UserError
from utils.folders import is_folder, names_in, readable_names_in
from utils.regular_files import open_regular, read_regular

_EPOCHS_TOLD = re.compile(rb'<meta name="epochs" content="(\d+)">')
_HEAD_BYTES = 1000
_MOST_BYTES_OF_A_TABLE = 1 << 26


@dataclass(frozen=True)
class RunFolder:
    """What one run folder holds.

    `checkpoints` are ordered by position, without `best` and `last`, the files under the best and the last name.
    `versions` are the numbers N of the version_N folders here and among its logs, and `entries` the names of everything
    that belongs to the run now, which is what moving it aside would move. `frozen` are files that checkpoints refer to,
    `strays` what a killed process was writing, `logged_epochs` counts the rows of the training log, and
    `reported_epochs` are those that the run page tells, None where there is no page. `place` is where the folder is, as
    `place_of` has it; "" where there is none.
    """

    folder: Path
    checkpoints: tuple[CheckpointRecord, ...] = ()
    best: CheckpointRecord | None = None
    weights: tuple[WeightsFile, ...] = ()
    unusable: tuple[UnusableFile, ...] = ()
    versions: tuple[int, ...] = ()
    entries: tuple[str, ...] = ()
    last: CheckpointRecord | None = None
    frozen: tuple[FrozenFile, ...] = ()
    strays: tuple[str, ...] = ()
    logged_epochs: int = 0
    reported_epochs: int | None = None
    place: str = ""

    @property
    def all_checkpoints(self) -> tuple[CheckpointRecord, ...]:
        """Every readable checkpoint, the file under the best name at the end."""
        return self.checkpoints + tuple(record for record in (self.last, self.best) if record)

    @property
    def listed(self) -> tuple[CheckpointRecord, ...]:
        """What a person wants to see: each checkpoint once under its own name, and the best one at the end."""
        named = {(record.position, record.run_id) for record in self.checkpoints}
        alone = [self.last] if self.last and (self.last.position, self.last.run_id) not in named else []
        own = sorted([*self.checkpoints, *alone], key=lambda record: record.position)
        return (*own, self.best) if self.best else tuple(own)

    @property
    def next_version(self) -> int:
        """The N of the version_N folder that what is moved aside next goes to."""
        return max(self.versions, default=0) + 1

    @property
    def latest(self) -> CheckpointRecord | None:
        """The checkpoint that is furthest in training, by its record alone."""
        return max(self.all_checkpoints, key=self.preference, default=None)

    def preference(self, record: CheckpointRecord) -> tuple[tuple[int, int], bool]:
        """Order by position; of two names for one position, the checkpoint's own is the better one."""
        return record.position, record is not self.best and record is not self.last


@dataclass(frozen=True)
class Candidates:
    """The latest checkpoint whose every bit is as written, and the newer or unreadable ones that are not.

    `opened` is that checkpoint's file.
    """

    usable: CheckpointRecord | None
    passed_over: tuple[UnusableFile, ...]
    opened: VerifiedFile | None = field(default=None, repr=False, compare=False)


def survey_folder(folder: Path, known: KnownFiles | None = None) -> RunFolder:
    """Read the record of every checkpoint in a run folder; a folder that does not exist is an empty one.

    What an interrupted move has still to take into a version_N folder counts as moved already. A journal of one that
    makes no sense is unusable, as are folders and other things that are named as checkpoints are. `known` are files
    that an earlier survey has read.
    """
    log_versions = versions_in(logs_folder_of(folder))
    if not is_folder(folder):
        return RunFolder(folder, versions=tuple(sorted(log_versions)))
    journal, unusable = _journal_in(folder)
    being_moved, move_versions = (set(journal.entries), {journal.version}) if journal else (set(), set())
    names = [name for name in names_in(folder) if name not in being_moved]
    entries = [name for name in names if version_number(name) is None and not _is_bookkeeping(name)]
    known = KnownFiles() if known is None else known
    files = [*known.examined(folder / name for name in entries if name.endswith(CHECKPOINT_SUFFIXES)), *unusable]
    records = [file for file in files if isinstance(file, CheckpointRecord)]
    best = _furthest(record for record in records if _is_named(record, record.description.best_checkpoint_name))
    last = _furthest(record for record in records if _is_named(record, LAST_CHECKPOINT))
    own = (record for record in records if record is not best and record is not last)
    return RunFolder(
        folder,
        tuple(sorted(own, key=lambda record: (record.position, record.path.name))),
        best,
        tuple(file for file in files if isinstance(file, WeightsFile)),
        tuple(file for file in files if isinstance(file, UnusableFile)),
        tuple(sorted(versions_in(folder) | log_versions | move_versions)),
        tuple(entries),
        last,
        tuple(file for file in files if isinstance(file, FrozenFile)),
        tuple(name for name in names if name.startswith(TEMPORARY_PREFIX)),
        _rows_in(folder / TRAINING_LOG_NAME),
        _epochs_told_by(folder / REPORT_NAME),
        place_of(folder),
    )


def place_of(folder: Path) -> str:
    """Return where a run folder is: its path from the root, links followed.

    Nothing else belongs to it: Slurm continues a run on another node, and a mount gives a folder another number.
    """
    return os.path.realpath(folder)


def _journal_in(folder: Path) -> tuple[MoveJournal | None, list[UnusableFile]]:
    try:
        return read_move_journal(folder), []
    except UserError as error:
        path = folder / MOVE_JOURNAL_NAME
        return None, [UnusableFile(path, str(error).removeprefix(f"{path} {CANNOT_BE_USED}: "))]


def is_copy(checkpoint: CheckpointRecord) -> bool:
    """Whether a checkpoint lies in another run folder than it was written in, or in another one's version_N.

    False where that is not known. The run of the folder that it was copied or moved from may go on there.
    """
    lies_in = checkpoint.path.parent
    folder = lies_in.parent if version_number(lies_in.name) else lies_in
    return bool(checkpoint.place) and checkpoint.place not in (place_of(lies_in), place_of(folder))


def _rows_in(table: Path) -> int:
    """Return the number of rows under a table's head; 0 where there is none."""
    try:
        return max(0, len(read_regular(table, _MOST_BYTES_OF_A_TABLE).splitlines()) - 1)
    except OSError:
        return 0


def _epochs_told_by(page: Path) -> int | None:
    """Return how many completed epochs a run page says that it tells; None for no page or another one."""
    try:
        with open_regular(page) as file:
            told = _EPOCHS_TOLD.search(file.read(_HEAD_BYTES))
    except OSError:
        return None
    return int(told.group(1)) if told else None


def _furthest(records: Iterable[CheckpointRecord]) -> CheckpointRecord | None:
    return max(records, key=lambda record: record.position, default=None)


def _is_named(record: CheckpointRecord, beginning: str) -> bool:
    return record.path.name.startswith(beginning)


def versions_in(folder: Path) -> set[int]:
    """Return the numbers N of what is called version_N in a folder."""
    return {number for number in map(version_number, readable_names_in(folder)) if number is not None}


def _is_bookkeeping(name: str) -> bool:
    return name in (LOCK_NAME, MOVE_JOURNAL_NAME) or name.startswith(TEMPORARY_PREFIX)


def find_latest_usable(run: RunFolder, lost: Sequence[UnusableFile] = ()) -> Candidates:
    """Open the checkpoints, and their frozen weights, from the latest one back until one is whole.

    `lost` are known to be of no use, by whatever name.
    """
    passed_over = list(run.unusable)
    frozen: KnownFrozen = {}
    for record in sorted(run.all_checkpoints, key=run.preference, reverse=True):
        if reason := next((file.reason for file in lost if _is_same_file(file.path, record.path)), ""):
            passed_over.append(UnusableFile(record.path, reason))
            continue
        try:
            opened = verify(record.path, frozen)
        except BadCheckpointFileError as error:
            passed_over.append(UnusableFile(record.path, str(error)))
            continue
        if isinstance(opened.facts, CheckpointRecord):
            return Candidates(opened.facts, tuple(passed_over), opened)
        passed_over.append(UnusableFile(record.path, "it was replaced by a file of another kind"))
    return Candidates(None, tuple(passed_over))


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one == other


def checkpoint_files(folder: Path) -> list[Path]:
    """Return what is named as checkpoints are in a folder, sorted by name; [] where it cannot be read."""
    return [folder / name for name in readable_names_in(folder) if name.endswith(CHECKPOINT_SUFFIXES)]


def other_run_folders(own: Path, root: Path = RUNS_ROOT) -> list[Path]:
    """Return the folders under `root`, but `own`, that hold checkpoint files, sorted by name.

    One that may not be looked into holds none.
    """
    folders = (root / name for name in readable_names_in(root))
    return [folder for folder in folders if folder != own and holds_checkpoints(folder)]


def holds_checkpoints(folder: Path) -> bool:
    """Whether something in a folder is named as checkpoints are, as far as that can be seen."""
    return any(name.endswith(CHECKPOINT_SUFFIXES) for name in readable_names_in(folder))


def _changed_at(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # it went meanwhile
        return 0.0


def newest_record(folder: Path) -> CheckpointRecord | None:
    """Return a readable record of a run folder, the most recently written one, without reading all of them."""
    for path in sorted(checkpoint_files(folder), key=_changed_at, reverse=True):
        found = examine(path)
        if isinstance(found, CheckpointRecord):
            return found
    return None
