"""What a killed process left undone after a run's last checkpoint: found by looking, without torch."""

from __future__ import annotations

from training.checkpoints.record import CheckpointRecord
from training.runs.retention import left_to_prune
from training.runs.survey import RunFolder
from training.settings.options import Options


def left_undone(run: RunFolder, newest: CheckpointRecord, asked_for: Options) -> tuple[str, ...]:
    """Return what does not fit the run's newest checkpoint, in words; () where all does, or `newest` is not that one.

    `asked_for` are the settings of now, which may keep more checkpoints than those that it was saved with.

    A checkpoint is durable before its second names are given and the log has its row. A run that goes on makes up for
    that when it starts; one that has reached its target must be looked at.
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
        (run.logged_epochs != newest.epoch, f"training_log.csv has {run.logged_epochs} of {newest.epoch} epochs"),
        (run.reported_epochs != newest.epoch, f"report.html tells {run.reported_epochs or 0} of {newest.epoch} epochs"),
    )
    return tuple(text for is_so, text in complaints if is_so)
