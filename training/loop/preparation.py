"""Brings a locked run folder into the shape that the plan says; each part may be cut off by a kill, and is repeated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.checkpoints.record import CheckpointRecord
from training.planning.plan import Plan
from training.runs.directory import LOCK_NAME, is_heatmaps_name
from training.runs.experiments import other_versions
from training.runs.lock import held_if_free
from training.runs.mirror_place import mirror_of
from training.runs.moving_aside import complete_interrupted_move, move_aside
from training.runs.survey import RunFolder, survey_folder
from training.saving.store import CheckpointStore, LoadedFile
from utils.atomic_files import fsync_folder, make_folder, remove_stray_temporaries, temporaries_in
from utils.console import say
from utils.errors import UserError
from utils.file_systems import limits_of
from utils.folders import readable_names_in
from utils.regular_files import is_regular
from utils.terminal_text import bytes_text, printable


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


def prepare_folder(plan: Plan, store: CheckpointStore, payload: Mapping[str, Any] | None = None) -> None:
    """Clean up after killed processes, move aside what the plan says, and put source and best checkpoint in place.

    `payload` is what the checkpoint held that training goes on from, where it was loaded already. The weights that the
    run's checkpoints will refer to are written here, before any of them. What the file system
    cannot do is said here, once a start. Raises UserError where the folder is not as it was when the plan was made.
    """
    complete_interrupted_move(plan.run)
    _remove_strays(plan.run.folder)
    for version in other_versions(plan.run.folder):
        if any(map(temporaries_in, _written_folders(version))):
            with held_if_free(version / LOCK_NAME) as is_free:
                if is_free:
                    _remove_strays(version)
    for limit in limits_of(plan.run.folder):
        say(f"[NOTE] {limit}")
    found = survey_folder(plan.run.folder)
    if set(found.entries) != set(plan.seen):
        raise UserError(f"{plan.run.folder} was changed by another process since this one looked: start again")
    is_own = plan.continues_here or plan.takes_over or found.all_checkpoints  # nothing here lies past the source then
    if plan.move_aside or (not is_own and _has_logs(plan)):
        move_aside(plan.run, plan.move_aside, found.next_version)
    in_place = plan.checkpoint.path if plan.checkpoint else None
    if plan.checkpoint and plan.bring_along:
        in_place = store.bring_along(plan.checkpoint, plan.opened)
    frozen = store.keep_frozen(plan.opened.frozen if plan.opened else None)
    if frozen:
        say(f"Frozen weights: {frozen} ({bytes_text(frozen.stat().st_size)}), once for all checkpoints of this run.")
    if plan.checkpoint and in_place:
        store.mark_last(in_place)
        loaded = LoadedFile(plan.opened, payload) if plan.opened and payload else None
        _restore_best(plan.checkpoint, plan, store, found, loaded)


def _remove_strays(run_folder: Path) -> None:
    for folder in _written_folders(run_folder):
        for name in remove_stray_temporaries(folder):
            say(printable(f"Removed {folder / name}, left by a process that was killed while it wrote."))


def _written_folders(run_folder: Path) -> list[Path]:
    """Return a run folder and those in it that heatmaps are drawn into."""
    found = [path for path in run_folder.iterdir() if is_heatmaps_name(path.name) and path.is_dir()]
    return [run_folder, *sorted(found)]


def _restore_best(
    resumed: CheckpointRecord, plan: Plan, store: CheckpointStore, found: RunFolder, loaded: LoadedFile | None
) -> None:
    numbers = sorted({found.next_version, *found.versions}, reverse=True)
    versions = [plan.run.version_folder(number) for number in numbers]
    mirrors = [mirror_of(plan.run.folder, Path(plan.options.mirror))] if plan.options.mirror else []
    missing = store.restore_best(resumed, [resumed.path.parent, plan.run.folder, *versions, *mirrors], loaded)
    if missing:
        say(f"[NOTE] {missing}")


def _has_logs(plan: Plan) -> bool:
    folder: Path = plan.run.logs_folder
    return any(is_regular(folder / name) for name in readable_names_in(folder))
