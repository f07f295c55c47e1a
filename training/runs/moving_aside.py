"""Moves an earlier run into its version_N folder, such that a kill in the middle is completed at the next start.

A folder cannot be renamed into itself, so this is one rename for each entry. The journal is durable before the first
of them and removed after the last; until then everything it names counts as moved (`survey_folder`). Nothing is ever
overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from training.runs.directory import RunDirectory, version_number
from training.runs.move_journal import MoveJournal, read_move_journal
from utils.atomic_files import durable_rename, fsync_folder, make_folder
from utils.folders import names_in


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
    _move(run.folder, journal.entries, run.version_folder(version))
    _move(run.logs_folder, journal.log_entries, run.logs_version_folder(version))
    run.move_journal.unlink()
    fsync_folder(run.folder)
    return version


def _move(folder: Path, names: Sequence[str], target: Path) -> None:
    for name in names:
        source = folder / name
        if not os.path.lexists(source):
            continue  # an interrupted move has moved it already
        make_folder(target)
        if os.path.lexists(target / name) and os.path.samestat(source.lstat(), (target / name).lstat()):
            source.unlink()  # a power cut may show a file under both names
        else:
            durable_rename(source, target / name)
