"""What --export checkpoint does: writes a checkpoint that needs no other file, to be moved and resumed elsewhere."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from training.checkpoints.record import CheckpointRecord
from training.checkpoints.verified_file import VerifiedFile
from training.saving.store import load_payload, save_checkpoint
from utils.atomic_files import remove_stray_temporaries
from utils.errors import UserError


def export_checkpoint(opened: VerifiedFile, target: Path | None) -> Path:
    """Write a checkpoint with its frozen weights in it, sealed, to `target` (default: NAME_whole.pth beside it).

    Raises UserError where there is nothing to resume in it, where `target` exists, and where it cannot be written.
    """
    source = opened.facts
    if not isinstance(source, CheckpointRecord):
        raise UserError(f"--export checkpoint: {source.path} holds weights only and is whole already: copy it")
    target = target or source.path.with_name(f"{source.path.stem}_whole.pth")
    require_free(target)
    save_checkpoint(target, load_payload(opened), replace(source, frozen=None))
    return target


def require_free(target: Path) -> None:
    """Raise UserError where an exported file cannot get this name: there is one already, or no folder for it.

    What a killed process left of writing it is removed.
    """
    if os.path.lexists(target):
        raise UserError(f"--export_path {target} exists already: pass another name, nothing is overwritten")
    if not target.parent.is_dir():
        raise UserError(f"--export_path {target}: there is no folder {target.parent}: make it first")
    remove_stray_temporaries(target.parent, of=target.name)
