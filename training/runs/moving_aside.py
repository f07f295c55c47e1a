"""Moves an earlier run into its version_N folder, such that a kill in the middle is completed at the next start.

A folder cannot be renamed into itself, so each entry is moved (`utils/moving.py`). The journal is durable before the
first of them and removed after all of them are; until then everything it names counts as moved (`survey_folder`).
Nothing is ever overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from training.runs.directory import RunDirectory, version_number
from utils.atomic_files import fsync_folder, write_text_atomically
from utils.moving import move_durably


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
    move_durably(journal["entries"], run.folder, run.version_folder(version))
    move_durably(journal["log_entries"], run.logs_folder, run.logs_version_folder(version))
    run.move_journal.unlink()
    fsync_folder(run.folder)
    return version


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
