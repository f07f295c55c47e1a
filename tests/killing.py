"""What a kill leaves in a run folder: temporaries, if it landed inside a write, and never a damaged checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from training.checkpoints.sealed_file import broken_seal
from training.settings.name_template import CHECKPOINT_SUFFIXES
from utils.atomic_files import TEMPORARY_PREFIX

POLL_S = 0.0005


def temporaries(folder: Path) -> set[Path]:
    """Return the files under `folder` that writes not yet finished have, or left."""
    return {path for path in files_in(folder) if path.name.startswith(TEMPORARY_PREFIX)}


def files_in(folder: Path) -> Iterator[Path]:
    """Yield what is in it, folders too, while others move and delete there."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def checkpoint_temporaries(folder: Path) -> set[Path]:
    """Return those of them that were to become a checkpoint."""
    return {path for path in temporaries(folder) if any(suffix in path.name for suffix in CHECKPOINT_SUFFIXES)}


def wait_for_a_write(is_running: Callable[[], bool], folder: Path) -> None:
    """Return as soon as a checkpoint is being written under `folder`, or nobody is running any more."""
    before = checkpoint_temporaries(folder)
    while is_running() and not checkpoint_temporaries(folder) - before:
        time.sleep(POLL_S)


def damaged_checkpoints(folder: Path) -> dict[str, str]:
    """Return what is wrong with files under a checkpoint's name: nothing, whatever was killed when."""
    names = [
        path
        for path in files_in(folder)
        if path.suffix in CHECKPOINT_SUFFIXES and not path.name.startswith(TEMPORARY_PREFIX)
    ]
    return {str(path): reason for path in names if (reason := broken_seal(path))}
