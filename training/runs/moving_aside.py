"""Moves an earlier run into its version_N folder, such that a kill in the middle is completed at the next start.

A folder cannot be renamed into itself, so each entry is moved (`utils/moving.py`). The journal is durable before the
first of them and removed after all of them are; until then everything it names counts as moved (`survey_folder`).
Nothing is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.runs.directory import RunDirectory, version_number
from training.runs.move_journal import MoveJournal, read_move_journal
from utils.atomic_files import fsync_folder
from utils.folders import names_in
from utils.moving import move_durably


def move_aside(run: RunDirectory, entries: Sequence[str], version: int) -> None:
    """Move `entries` of the run folder, and all its logs, into version folders of the same number."""
    logs = tuple(name for name in names_in(run.logs_folder) if version_number(name) is None)
    MoveJournal(version, tuple(entries), logs).write(run.folder)
    complete_interrupted_move(run)


def complete_interrupted_move(run: RunDirectory) -> int | None:
    """Carry out what the journal says and return its version number; None where there is no journal.

    Raises UserError for one that makes no sense, and moves nothing then.
    """
    journal = read_move_journal(run.folder)
    if journal is None:
        return None
    version = journal.version
    move_durably(journal.entries, run.folder, run.version_folder(version))
    move_durably(journal.log_entries, run.logs_folder, run.logs_version_folder(version))
    run.move_journal.unlink()
    fsync_folder(run.folder)
    return version
