"""Finds what --model_path names: a file or the last or best checkpoint of a folder, its every bit checked."""

from __future__ import annotations

from pathlib import Path

from training.checkpoints.frozen_reference import FrozenFile, broken_frozen
from training.checkpoints.record import CheckpointRecord, UnusableFile, WeightsFile, examine
from training.checkpoints.sealed_file import broken_seal
from training.runs.survey import survey_folder
from training.settings.name_template import CHECKPOINT_SUFFIXES
from utils.errors import UserError

_NAMES_SHOWN = 12


def find_source(path: Path, which: str) -> CheckpointRecord | WeightsFile:
    """Return what --model_path names, its every bit checked; raises UserError that lists what is there instead."""
    if path.is_dir():
        return _find_in_folder(path, which)
    if not path.is_file():
        fault = "is no regular file" if path.exists() else "does not exist"
        raise UserError(f"--model_path {path} {fault}: {what_is_in(path.parent)}")
    found = examine(path)
    if isinstance(found, UnusableFile):
        raise UserError(f"--model_path {path} cannot be used: {found.reason}; {what_is_in(path.parent)}")
    if isinstance(found, FrozenFile):
        raise UserError(
            f"--model_path {path} holds the frozen weights that checkpoints refer to, and no detector: pass a "
            f"checkpoint; {what_is_in(path.parent)}"
        )
    return _intact(found)


def _find_in_folder(folder: Path, which: str) -> CheckpointRecord | WeightsFile:
    run = survey_folder(folder)
    found = run.best if which == "best" else run.latest
    if found is None:
        raise UserError(f"--model_path {folder} holds no {which} checkpoint: {what_is_in(folder)}")
    return _intact(found)


def _intact(found: CheckpointRecord | WeightsFile) -> CheckpointRecord | WeightsFile:
    reason = broken_seal(found.path)
    if reason:
        raise UserError(f"--model_path {found.path} is damaged: {reason}; {what_is_in(found.path.parent)}")
    reason = broken_frozen(found.path, found.frozen) if isinstance(found, CheckpointRecord) else None
    if reason:
        raise UserError(f"--model_path {found.path} cannot be used: {reason}")
    return found


def what_is_in(folder: Path) -> str:
    """Say which checkpoints and folders are in a folder, for the message about one that is not."""
    if not folder.is_dir():
        return f"there is no folder {folder}; --list_checkpoints shows the checkpoints of a run"
    names = sorted(p.name for p in folder.iterdir() if p.name.endswith(CHECKPOINT_SUFFIXES) or p.is_dir())
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"{folder} holds {', '.join(names[:_NAMES_SHOWN])}{more}" if names else f"{folder} holds no checkpoint"
