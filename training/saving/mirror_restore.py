"""Brings back from the mirror what a run needs to go on, where its first folder is gone, damaged or behind.

The newest checkpoint, the best one, the frozen weights and the small files beside them are copied back, each read back
before it gets its name; older checkpoints stay in the mirror alone. What the first folder has is not touched, but for a
damaged file of the same name. Then the run goes on as if nothing had happened: under its own id, to the same bits.
Needs no torch.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from concurrent.futures import TimeoutError as LateError
from contextlib import ExitStack, contextmanager
from pathlib import Path

from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.sealed_file import broken_seal
from training.planning.facts import Facts
from training.runs.directory import OUTPUTS_ROOT, RUNS_ROOT, VERSIONS_NAME
from training.runs.lock import RunLock
from training.runs.mirror_place import mirror_of
from training.runs.own_folder import Wanted, is_asked_for
from training.runs.survey import (
    RunFolder,
    find_latest_usable,
    newest_record,
    other_run_folders,
    survey_folder,
    versions_in,
)
from training.saving.mirror import mirror_lock
from training.saving.mirror_copy import Copying, content_of, copy_beside, copy_verified
from training.settings.identity import possible_names
from training.settings.requests import AutoResume
from utils.atomic_files import make_folder
from utils.console import say
from utils.errors import UserError
from utils.folders import is_folder
from utils.waiting import Helpers

_ANSWERS_WITHIN_S = 20.0


def restore_from_mirror(command: AutoResume, facts: Facts) -> list[Path]:
    """Copy back what is newer in the mirror than what `facts` found; return the files, [] where there is nothing.

    Raises UserError where another process writes in one of the two folders, and where the first disk refuses.
    """
    root = Path(facts.options.mirror or "")
    if not facts.options.mirror or not is_folder(root):
        return []
    try:
        found = Helpers(1, "mirror").do(lambda _: _look(command, facts, root)).result(_ANSWERS_WITHIN_S)
    except LateError:
        say(f"[WARNING] --mirror {root} does not answer for {_ANSWERS_WITHIN_S:.0f} s: nothing there is looked at.")
        return []
    if found is None:
        return []
    folder, there = found
    here = facts.candidates.usable if folder == facts.run.folder else None
    newest = _newer(folder, here, there)
    if newest is None:
        return []
    why = f"{folder} has {here.path.name} as its newest one" if here else f"{folder} has none that can be used"
    say(f"Going on from the mirror: {newest.path} is the newer checkpoint, since {why}. Copying it back.")
    try:
        return _copied_back(folder, there, newest)
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"{where} cannot be copied from the mirror ({error.strerror or error}): mend that") from error


def _newer(folder: Path, here: CheckpointRecord | None, there: RunFolder) -> CheckpointRecord | None:
    """Return the whole checkpoint in the mirror that is newer than the usable one here; None where there is none."""
    if there.latest is None or (here and there.latest.position <= here.position):
        return None
    if here and there.latest.run_id_at(here.step) != here.run_id:
        say(f"[NOTE] {there.folder} holds another run than {folder}: nothing there is used.")
        return None
    newest = find_latest_usable(there).usable
    if newest is None or (here and newest.position <= here.position):
        say(f"[WARNING] {there.latest.path} is newer than what {folder} holds, and damaged: it is not used.")
        return None
    return newest


def _look(command: AutoResume, facts: Facts, root: Path) -> tuple[Path, RunFolder] | None:
    """Return the run folder that the command means, and what its mirror holds; None where there is no mirror of it."""
    folders, wanted = [facts.run.folder], Wanted(command.options, command.given)
    is_known = facts.candidates.usable or facts.run.all_checkpoints or facts.run.unusable
    if command.options.experiment is not None and not is_known:
        versions = OUTPUTS_ROOT / command.options.experiment / VERSIONS_NAME
        numbers = sorted(versions_in(mirror_of(versions / "version_0", root).parent), reverse=True)
        folders = [versions / f"version_{number}" for number in numbers]
    elif not is_known and not facts.other_length_folder:
        folders += [RUNS_ROOT / name for name in possible_names(facts.options)]
        folders += [RUNS_ROOT / name for name in _of_other_length(wanted, mirror_of(facts.run.folder, root))]
    for folder in folders:
        there = survey_folder(mirror_of(folder, root))
        if there.latest and not {change.name for change in wanted.differs_from(there.latest)} & command.given:
            return folder, there
    return None


def _of_other_length(wanted: Wanted, own: Path) -> list[str]:
    """Return the names of the folders beside a run's own one that hold it with another length, the longest first."""
    read = ((folder, record) for folder in other_run_folders(own, own.parent) if (record := newest_record(folder)))
    found = [(record.position, folder.name) for folder, record in read if is_asked_for(wanted, folder, record)]
    return [name for _, name in sorted(found, reverse=True)]


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a mirror, unless this process may only read there, as on a disk that the system made read-only."""
    with ExitStack() as held:
        try:
            held.enter_context(mirror_lock(folder))
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise
        yield


def _copied_back(folder: Path, there: RunFolder, newest: CheckpointRecord) -> list[Path]:
    make_folder(folder)
    with _held(there.folder), RunLock(folder / ".lock"):
        wanted = [(there.folder / newest.frozen.file, newest.frozen.file)] if newest.frozen else []
        records = [newest, *_best_of(there, newest)]
        wanted += [(record.path, record.name or record.path.name) for record in records]  # last_checkpoint is no name
        copied = []
        for source, name in wanted:
            target = folder / name
            if content_of(source) != content_of(target) or broken_seal(target):
                copy_verified(source, target, lambda: None, Copying())
                copied.append(target)
        copy_beside(there.folder, folder, only_missing=True)
    return copied


def _best_of(there: RunFolder, newest: CheckpointRecord) -> list[CheckpointRecord]:
    """Return the checkpoint of the best epoch, unless that is the newest one."""
    if newest.best is None or (newest.last == newest.best and newest.kind is Kind.EPOCH):
        return []
    candidates = [*there.checkpoints, *([there.best] if there.best else [])]
    named = (one for one in candidates if one.kind is Kind.EPOCH and one.last == newest.best)
    best = next((one for one in named if one.run_id == newest.run_id_at(one.step)), None)
    return [best] if best else []
