"""Moves an earlier run into its version_N folder, such that a kill in the middle is completed at the next start.

A folder cannot be renamed into itself, so this is one rename for each entry. The journal is durable before the first
of them and removed after the last; until then everything it names counts as moved (`survey_folder`). Nothing is ever
overwritten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from training.runs.directory import RunDirectory, version_number
from utils.atomic_files import durable_rename, fsync_folder, make_folder, write_text_atomically


def move_aside(run: RunDirectory, entries: Sequence[str], version: int) -> None:
    """Move `entries` of the run folder, and all its logs, into version folders of the same number."""
    logs = [path.name for path in _listed(run.logs_folder) if version_number(path.name) is None]
    journal = {"version": version, "entries": list(entries), "log_entries": logs}
    write_text_atomically(run.move_journal, json.dumps(journal, indent=1))
    complete_interrupted_move(run)


def complete_interrupted_move(run: RunDirectory) -> int | None:
    """Carry out what the journal says and return its version number; None where there is no journal."""
    if not run.move_journal.exists():
        return None
    journal = json.loads(run.move_journal.read_text(encoding="utf-8"))
    version: int = journal["version"]
    _move(run.folder, journal["entries"], run.version_folder(version))
    _move(run.logs_folder, journal["log_entries"], run.logs_version_folder(version))
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


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
