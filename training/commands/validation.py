"""Which files --validate_checkpoints checks, and what it says of all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoints.checking import CheckedFile
from training.runs.directory import version_number
from training.runs.survey import checkpoint_files, other_run_folders
from training.settings.name_template import LAST_CHECKPOINT
from training.settings.tasks import BEST_CHECKPOINT, BEST_WEIGHTS
from utils.errors import UserError
from utils.terminal_text import bytes_text


@dataclass(frozen=True)
class FileGroup:
    """Checkpoint files of one folder; `title` is a line to print before them, if there is one."""

    title: str
    paths: tuple[Path, ...]


def find_files(place: Path) -> list[FileGroup]:
    """Return the files to check: `place` itself, or those of a run folder and of its version_N folders.

    Raises UserError where there are none, so that a mistyped path is not taken for good news.
    """
    if not place.is_dir():
        if not place.exists() and not place.is_symlink():
            raise UserError(f"--validate_checkpoints: {place} does not exist{_runs_to_name(place)}")
        if place.exists() and not place.is_file():
            raise UserError(f"--validate_checkpoints: {place} is no regular file: pass a checkpoint or a run folder")
        return [FileGroup("", (place,))]
    versions = sorted((n, entry) for entry in place.iterdir() if (n := version_number(entry.name)) and entry.is_dir())
    groups = [FileGroup("", _checkpoints_in(place))]
    for _, folder in versions:
        paths = _checkpoints_in(folder)
        files = "1 file" if len(paths) == 1 else f"{len(paths)} files"
        groups.append(FileGroup(f"{folder}: an earlier run, moved aside, {files}", paths))
    if not any(group.paths for group in groups):
        raise UserError(f"--validate_checkpoints: there is no checkpoint in {place}{_runs_to_name(place)}")
    return groups


def _checkpoints_in(folder: Path) -> tuple[Path, ...]:
    """Return the checkpoint files of a folder, epoch 2 before epoch 10, second names at the end.

    A link that leads nowhere is one of them, so that it is named.
    """
    found = [path for path in checkpoint_files(folder) if path.is_file() or path.is_symlink()]
    return tuple(sorted(found, key=_natural_order))


def _natural_order(path: Path) -> tuple[bool, list[tuple[str, int]]]:
    is_second_name = path.name.startswith((LAST_CHECKPOINT, BEST_CHECKPOINT, BEST_WEIGHTS))
    return is_second_name, [(text, int(number or 0)) for text, number in re.findall(r"([^0-9]*)([0-9]*)", path.name)]


def _runs_to_name(place: Path) -> str:
    others = other_run_folders(place)
    return f"; runs that have some: {', '.join(map(str, others))}" if others else ""


def summary_text(checked: Sequence[CheckedFile], seconds: float) -> str:
    """Return the last line: how many files, how fast, how many of them are bad."""
    bad = [file for file in checked if not file.verdict.is_good]
    size = sum(file.bytes_on_disk for file in checked if not file.note.startswith("the same file"))
    files = "1 file" if len(checked) == 1 else f"{len(checked)} files"
    rate = f", {bytes_text(int(size / seconds))}/s" if seconds > 0 else ""
    return f"{files} checked, {bytes_text(size)} in {seconds:.1f} s{rate}: {f'{len(bad)} BAD' if bad else 'all good'}"


def validation_document(checked: Sequence[CheckedFile], seconds: float) -> dict[str, Any]:
    """Return what --json prints: files (see CheckedFile.as_document), bad (their number) and seconds."""
    return {
        "files": [file.as_document() for file in checked],
        "bad": sum(not file.verdict.is_good for file in checked),
        "seconds": seconds,
    }
