"""Makes one checkpoint part of its run: written, then best and last, then what retention lets go, then compression.

Each part waits for the one before to be durable. A kill between two of them leaves a run that the next start mends
(`CheckpointStore.restore_best`, `restore_last`) and that nothing is missing from. All of it runs in the thread that
writes, so it knows nothing of the state that trains on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.sealed_file import broken_seal
from training.runs.known_files import KnownFiles
from training.runs.retention import RetentionPolicy, files_to_prune
from training.runs.survey import survey_folder
from training.saving.compression import compress_file, files_to_compress
from training.saving.save_control import AwaitedError, SaveControl
from training.saving.store import CannotSaveError, CheckpointStore
from utils.atomic_files import fsync_folder


@dataclass(frozen=True)
class Outcome:
    """How one save ended: where the checkpoint is, or why it is on no disk (`refused`), and what else must be told."""

    record: CheckpointRecord
    path: Path | None
    refused: str = ""
    warnings: tuple[str, ...] = ()


@dataclass
class Committer:
    """Commits the checkpoints of one run, one after the other. `source` is the file that the run was started from.

    `on_new_folder` is called where the run folder was gone and was made again: what lay in it beside checkpoints.
    """

    store: CheckpointStore
    policy: RetentionPolicy
    source: Path | None = None
    compress_after: int | None = None
    on_new_folder: Callable[[], None] = lambda: None
    _best_is_stale: bool = False
    _warnings: list[str] = field(default_factory=list)
    _known: KnownFiles = field(default_factory=KnownFiles)

    def commit(self, payload: Mapping[str, Any], record: CheckpointRecord, control: SaveControl) -> Outcome:
        """Return once the checkpoint is durable and everything that follows from it is done or found impossible."""
        try:
            note = self.store.hold_folder(record)
            path = self.store.save(payload, record, control.check)
        except CannotSaveError as error:
            return Outcome(record, None, str(error))
        self._warnings = [note] if note else []
        if note:
            self._best_is_stale = True
            self._try(self.on_new_folder, "the settings of the run are not beside its checkpoints")
        warned = len(self._warnings)
        stale = "the best files are not those of the best epoch"
        self._try(lambda: self._keep_best(path, payload, record, control), stale)
        self._try(lambda: self.store.mark_last(path), "it is not the checkpoint that is furthest in training")
        if len(self._warnings) == warned:  # only what is safely under its other names may lose its own
            self._try(lambda: self._prune(path, record), "what --keep_last_n and the like let go is still there")
            self._try(lambda: self._compress(record, control), "older checkpoints stay as they are")
        return Outcome(record, path, warnings=tuple(self._warnings))

    def _try(self, action: Callable[[], None], consequence: str) -> None:
        """Do what the checkpoint's own safety does not depend on; the next save tries again."""
        try:
            action()
        except CannotSaveError as error:
            self._warnings.append(f"{error}; until a later save succeeds in it, {consequence}")
        except OSError as error:
            where = error.filename or self.store.run.folder
            self._warnings.append(f"{where}: {error.strerror or error}; until a later save succeeds, {consequence}")

    def _keep_best(
        self, path: Path, payload: Mapping[str, Any], record: CheckpointRecord, control: SaveControl
    ) -> None:
        """Make the best files those of the best epoch, also where an earlier attempt was refused."""
        is_best = record.kind is Kind.EPOCH and record.best == record.last
        if not is_best and not self._best_is_stale:
            return
        self._best_is_stale = True
        if is_best:
            self.store.mark_best(path, payload, record, control.check)
        else:
            lost = self.store.restore_best(record, [self.store.run.folder])
            self._warnings += [lost] if lost else []
        self._best_is_stale = False

    def _prune(self, path: Path, record: CheckpointRecord) -> None:
        """Delete what the policy does not keep, once every byte of the newest checkpoint was read back."""
        found = survey_folder(self.store.run.folder, self._known).checkpoints
        gone = files_to_prune(found, record.lineage, self.policy, record.best, self.source)
        if not gone:
            return
        damage = broken_seal(path)
        if damage:
            self._warnings.append(f"{path} is not as it was written: {damage}; nothing older is deleted")
            return
        _delete(gone)

    def _compress(self, record: CheckpointRecord, control: SaveControl) -> None:
        """Deflate old files, one after the other, for as long as nobody waits; what was begun then is begun again."""
        if self.compress_after is None:
            return
        found = survey_folder(self.store.run.folder, self._known).checkpoints
        for path in files_to_compress(found, record.lineage, self.compress_after):
            try:
                compress_file(path, control.check_nobody_waits)
            except AwaitedError:
                return
            except BadCheckpointFileError as error:
                self._warnings.append(f"{path} is not compressed: {error}")


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink()
    for folder in {path.parent for path in paths}:
        fsync_folder(folder)
