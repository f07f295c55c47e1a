"""Whether a run folder is what a start left that ended before anything was saved: the next start takes it over.

Looks at the disk, changes nothing, needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from training.runs.directory import CONFIG_NAME, REPORT_NAME, TRAINING_LOG_NAME, logs_folder_of
from training.runs.survey import RunFolder
from training.runs.trained_names import FILE_NAME
from utils.regular_files import open_regular

_WRITTEN_BEFORE_THE_FIRST_STEP = frozenset((CONFIG_NAME, FILE_NAME, TRAINING_LOG_NAME, REPORT_NAME))
_LENGTH_BYTES, _FRAME_BYTES = 8, 16  # of an entry in TensorBoard's file: its length, and what is around its content


def is_untrained(run: RunFolder) -> bool:
    """Whether a run folder holds no checkpoint and no record of training, but at most what every start writes first.

    Frozen weights are none: they are written before the first step, and named by their content.
    """
    if run.all_checkpoints or run.weights or run.unusable or run.logged_epochs or run.reported_epochs:
        return False
    known = _WRITTEN_BEFORE_THE_FIRST_STEP | {file.path.name for file in run.frozen}
    return known.issuperset(run.entries) and not _has_curves(logs_folder_of(run.folder))


def _has_curves(logs: Path) -> bool:
    """Whether TensorBoard's files in a folder hold more than their first entry, which says their version."""
    return any(map(_has_a_second_entry, logs.glob("events.out.tfevents.*")))


def _has_a_second_entry(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            first = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            return path.stat().st_size > first + _FRAME_BYTES
    except OSError:
        return True  # it cannot be known
