"""Brings a locked run folder into the shape that the plan says; each part may be cut off by a kill, and is repeated."""

from __future__ import annotations

from pathlib import Path

from training.checkpoints.store import CheckpointStore
from training.plan import Plan
from training.runs.moving_aside import complete_interrupted_move, move_aside
from training.runs.survey import RunFolder, survey_folder
from utils.atomic_files import fsync_folder, make_folder, remove_stray_temporaries
from utils.console import say
from utils.errors import UserError
from utils.file_systems import limits_of


def make_run_folder(plan: Plan) -> None:
    """Make the run folder; one for a new version must be made by this process, so that no two get one number."""
    if not plan.is_new_version:
        make_folder(plan.run.folder)
        return
    make_folder(plan.run.folder.parent)
    try:
        plan.run.folder.mkdir()
    except FileExistsError as error:
        raise UserError(
            f"{plan.run.folder} was made by another process since this one looked: start again, for the next version"
        ) from error
    fsync_folder(plan.run.folder.parent)


def prepare_folder(plan: Plan, store: CheckpointStore) -> None:
    """Clean up after killed processes, move aside what the plan says, and put source and best checkpoint in place.

    What the file system cannot do is said here, once a start. Raises UserError where the folder is not as it was when
    the plan was made.
    """
    complete_interrupted_move(plan.run)
    for name in remove_stray_temporaries(plan.run.folder):
        say(f"Removed {plan.run.folder / name}, left by a process that was killed while it wrote.")
    for limit in limits_of(plan.run.folder):
        say(f"[NOTE] {limit}")
    found = survey_folder(plan.run.folder)
    if set(found.entries) != set(plan.seen):
        raise UserError(f"{plan.run.folder} was changed by another process since this one looked: start again")
    if plan.move_aside or (not plan.continues_here and _has_logs(plan)):
        move_aside(plan.run, plan.move_aside, found.next_version)
    if plan.checkpoint:
        _put_in_place(plan, store, found)


def _put_in_place(plan: Plan, store: CheckpointStore, found: RunFolder) -> None:
    assert plan.checkpoint is not None
    store.mark_last(store.bring_along(plan.checkpoint) if plan.bring_along else plan.checkpoint.path)
    versions = [plan.run.version_folder(number) for number in range(found.next_version, 0, -1)]
    missing = store.restore_best(plan.checkpoint, [plan.checkpoint.path.parent, plan.run.folder, *versions])
    if missing:
        say(f"[NOTE] {missing}")


def _has_logs(plan: Plan) -> bool:
    folder: Path = plan.run.logs_folder
    return folder.is_dir() and any(path.is_file() for path in folder.iterdir())
