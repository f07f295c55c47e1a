"""What a killed process left undone after a run's last checkpoint: found by looking, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.checkpoints.examined import WeightsFile
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.sealed_file import broken_seal
from training.runs.retention import left_to_prune
from training.runs.survey import RunFolder
from training.settings.options import Options


def left_undone(run: RunFolder, newest: CheckpointRecord, asked_for: Options) -> tuple[str, ...]:
    """Return what does not fit the run's newest checkpoint, in words; () where all does, or `newest` is not that one.

    `asked_for` are the settings of now, which may keep more checkpoints than those that it was saved with.

    A checkpoint is durable before its second names are given and the log has its row. A run that goes on makes up for
    that when it starts; one that has reached its target must be looked at. Every bit of the last and the best files is
    read, unless they are the newest checkpoint by another name, which was read before.
    """
    if newest.path.parent != run.folder or run.latest is None or run.latest.position != newest.position:
        return ()
    best = newest.best
    surplus = [path.name for path in left_to_prune(run.checkpoints, newest, asked_for)]
    best_weights = [file for file in run.weights if file.is_best]
    complaints = (
        (bool(run.strays), f"{', '.join(run.strays)} is there, left by a process that was killed while it wrote"),
        (run.last is None or run.last.position != newest.position, "last_checkpoint is not the newest checkpoint"),
        (best is not None and (run.best is None or run.best.last != best), "the best checkpoint is not the best epoch"),
        (best is not None and all(file.epoch != best.epoch for file in best_weights), "the best weights are not its"),
        (bool(surplus), f"{', '.join(surplus)} is there, which was to be deleted"),
        *((True, f"{name} is damaged") for name in _damaged(newest, run, best_weights)),
        (run.logged_epochs != newest.epoch, f"training_log.csv has {run.logged_epochs} of {newest.epoch} epochs"),
        (run.reported_epochs != newest.epoch, f"report.html tells {run.reported_epochs or 0} of {newest.epoch} epochs"),
    )
    return tuple(text for is_so, text in complaints if is_so)


def _damaged(newest: CheckpointRecord, run: RunFolder, best_weights: Sequence[WeightsFile]) -> list[str]:
    paths = [file.path for file in (run.last, run.best, *best_weights) if file]
    return [path.name for path in paths if not _is_read(path, newest) and broken_seal(path)]


def _is_read(path: Path, newest: CheckpointRecord) -> bool:
    return path.exists() and path.samefile(newest.path)
