"""Finds what --model_path names: a file, or the last or best checkpoint of a folder; opened, its every bit verified."""

from __future__ import annotations

import os
from pathlib import Path

from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.frozen_reference import FrozenFile
from training.checkpoints.verified_file import BrokenFileError, VerifiedFile, verify
from training.runs.survey import survey_folder
from training.settings.name_template import CHECKPOINT_SUFFIXES
from utils.errors import UserError
from utils.folders import is_folder, readable_names_in
from utils.regular_files import is_regular

_NAMES_SHOWN = 12


def find_source(path: Path, which: str, flag: str = "--model_path") -> VerifiedFile:
    """Return what --model_path names, a checkpoint or weights; raises UserError that lists what is there instead.

    `flag` is the one behind which the path was typed.
    """
    if is_folder(path):
        return _find_in_folder(path, which, flag)
    if not is_regular(path):
        fault = "is no regular file" if os.path.lexists(path) else "does not exist"
        raise UserError(f"{flag} {path} {fault}: {what_is_in(path.parent)}")
    found = _opened(path, flag)
    if isinstance(found.facts, FrozenFile):
        raise UserError(
            f"{flag} {path} holds the frozen weights that checkpoints refer to, and no detector: pass a "
            f"checkpoint; {what_is_in(path.parent)}"
        )
    return found


def _find_in_folder(folder: Path, which: str, flag: str) -> VerifiedFile:
    run = survey_folder(folder)
    found = run.best if which == "best" else run.latest
    if found is None:
        raise UserError(f"{flag} {folder} holds no {which} checkpoint: {what_is_in(folder)}")
    return _opened(found.path, flag)


def _opened(path: Path, flag: str) -> VerifiedFile:
    try:
        return verify(path)
    except BadCheckpointFileError as error:
        fault = "is damaged" if isinstance(error, BrokenFileError) else "cannot be used"
        raise UserError(f"{flag} {path} {fault}: {error}; {what_is_in(path.parent)}") from error


def what_is_in(folder: Path) -> str:
    """Say which checkpoints and folders are in a folder, for the message about one that is not."""
    if not is_folder(folder):
        return f"there is no folder {folder}; --list_checkpoints shows the checkpoints of a run"
    found = readable_names_in(folder)
    names = [name for name in found if name.endswith(CHECKPOINT_SUFFIXES) or is_folder(folder / name)]
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"{folder} holds {', '.join(names[:_NAMES_SHOWN])}{more}" if names else f"{folder} holds no checkpoint"
