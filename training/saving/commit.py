"""Makes one checkpoint part of its run: written, then best and last, then what retention lets go, then compression.

Each part waits for the one before to be durable. A kill between two of them leaves a run that the next start mends
(`CheckpointStore.restore_best`, `restore_last`) and that nothing is missing from. All of it runs in the thread that
writes, so it knows nothing of the state that trains on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.rows import EpochMetrics, rank
from training.checkpoints.sealed_file import broken_seal
from training.runs.known_files import KnownFiles
from training.runs.retention import RetentionPolicy, files_to_prune
from training.runs.survey import survey_folder
from training.saving.background_copies import lasting_copy
from training.saving.compression import compress_file, files_to_compress
from training.saving.save_control import AwaitedError, SaveControl
from training.saving.store import CannotSaveError, CheckpointStore
from utils.atomic_files import fsync_folder
from utils.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """How one save ended: where the checkpoint is, or why it is on no disk (`refused`), and what else must be told.

    `furthest` is the checkpoint that is furthest in training of those that were saved. Both paths are names that
    retention left: the user is told to go on from them. `durable_at` is when the checkpoint was on disk, in seconds of
    time.monotonic, None where it is not, with its size, and `cpu_seconds` the processor time that all of it took beside
    training: none where the loop itself saved, and was held up for as long.
    """

    record: CheckpointRecord
    path: Path | None
    refused: str = ""
    warnings: tuple[str, ...] = ()
    furthest: Path | None = None
    durable_at: float | None = None
    bytes_on_disk: int = 0
    cpu_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class _Refused:
    """An epoch that is on no disk; its payload is whole while `control.keeps_payload`."""

    payload: Mapping[str, Any]
    record: CheckpointRecord
    control: SaveControl


@dataclass
class Committer:
    """Commits the checkpoints of one run, one after the other.

    `on_new_folder` is called where the run folder was gone and was made again: what lay in it beside checkpoints.
    """

    store: CheckpointStore
    policy: RetentionPolicy
    compress_after: int | None = None
    on_new_folder: Callable[[], None] = lambda: None
    _best_is_stale: bool = False
    _is_behind: bool = False
    _furthest: tuple[Path, CheckpointRecord] | None = None
    _refused: _Refused | None = None
    _warnings: list[str] = field(default_factory=list)
    _known: KnownFiles = field(default_factory=KnownFiles)

    def commit(self, payload: Mapping[str, Any], record: CheckpointRecord, control: SaveControl) -> Outcome:
        """Return once the checkpoint is durable and everything that follows from it is done or found impossible.

        An epoch that is refused is kept in memory for `save_refused`: one at a time, the best rather than one that the
        policy asks for by its number, and that rather than another; of two alike the newer.
        """
        if self._refused and not self._refused.control.keeps_payload:
            self._refused = None
        began, is_beside_training = time.thread_time(), control.keeps_payload
        outcome = self._commit(payload, record, control)
        if is_beside_training:
            outcome = replace(outcome, cpu_seconds=time.thread_time() - began)
        if self._takes_the_place(record, is_refused=bool(outcome.refused)):
            self._refused = self._kept(payload, record, control) if outcome.refused else None
        return outcome

    def _takes_the_place(self, record: CheckpointRecord, *, is_refused: bool) -> bool:
        """Whether the refused checkpoint that is kept in memory, or none, gives way to this one."""
        if record.kind is not Kind.EPOCH:
            return False
        kept = self._refused.record if self._refused else None
        best = _best_of(record, kept)
        if is_refused:
            return self._worth(record, best) >= max(self._worth(kept, best), 1)
        return self._worth(kept, best) == 0

    def _worth(self, refused: CheckpointRecord | None, best: EpochMetrics | None) -> int:
        """Return how much a second try is worth: for the best epoch most, nothing for one that would be let go."""
        if refused is None:
            return 0
        if refused.last == best:
            return 3
        if self.policy.save_best_only:
            return 0
        return 2 if self.policy.asks_for(refused.epoch) else 1

    def save_refused(self) -> Outcome | None:
        """Try once more to save the epoch that was refused, if its state is in memory; None where not.

        To be called when no save is under way, before the next one: its checkpoint then knows of this one.
        """
        refused = self._refused
        if refused is None or not refused.control.keeps_payload:
            self._refused = None
            return None
        outcome = self._commit(refused.payload, refused.record, SaveControl())
        lasting = lasting_copy(refused.payload) if outcome.refused else None
        self._refused = _Refused(lasting, refused.record, SaveControl(keeps_payload=True)) if lasting else None
        return outcome

    def catch_up(self) -> None:
        """Try once more what followed from the last save and was refused, and told: no other save comes."""
        if self._is_behind and self._furthest:
            self._follow(*self._furthest, None, SaveControl())

    def _kept(self, payload: Mapping[str, Any], record: CheckpointRecord, control: SaveControl) -> _Refused | None:
        if control.keeps_payload:
            return _Refused(payload, record, control)
        lasting = lasting_copy(payload)
        return _Refused(lasting, record, SaveControl(keeps_payload=True)) if lasting else None

    def _commit(self, payload: Mapping[str, Any], record: CheckpointRecord, control: SaveControl) -> Outcome:
        try:
            note = self.store.hold_folder(record)
            path = self.store.save(payload, record, control.check)
        except CannotSaveError as error:
            return Outcome(record, None, str(error), furthest=self._furthest[0] if self._furthest else None)
        durable_at, size = time.monotonic(), _size_of(path)
        self._warnings = [note] if note else []
        if note:
            self._best_is_stale = True
            self._try(self.on_new_folder, "the settings of the run are not beside its checkpoints")
        if self._furthest is None or record.position >= self._furthest[1].position:
            self._furthest = path, record
        self._follow(path, record, payload, control)
        furthest = self._name_kept(self._furthest[0])
        kept = self._name_kept(path)
        return Outcome(record, kept, "", tuple(self._warnings), furthest, durable_at, size)

    def _name_kept(self, path: Path) -> Path:
        """Return a name that a durable checkpoint still has: its own, or, with --save_best_only, the last or best."""
        if not _is_gone(path):
            return path
        is_furthest = self._furthest is not None and path == self._furthest[0]
        return self.store.run.last_checkpoint if is_furthest else self.store.run.best_checkpoint

    def _follow(
        self, path: Path, record: CheckpointRecord, payload: Mapping[str, Any] | None, control: SaveControl
    ) -> None:
        """Do what follows from a durable checkpoint, whose state is not in memory any more if `payload` is None."""
        assert self._furthest
        furthest, _ = self._furthest
        warned = len(self._warnings)
        stale = "the best files are not those of the best epoch"
        self._try(lambda: self._keep_best(path, payload, record, control), stale)
        if path == furthest or self._is_behind:
            self._try(lambda: self.store.mark_last(furthest), "it is not the checkpoint that is furthest in training")
        if len(self._warnings) == warned:  # only what is safely under its other names may lose its own
            self._try(lambda: self._prune(path, record), "what --keep_last_n and the like let go is still there")
            self._try(lambda: self._compress(record, control), "older checkpoints stay as they are")
        self._is_behind = len(self._warnings) > warned

    def _try(self, action: Callable[[], None], consequence: str) -> None:
        """Do what the checkpoint's own safety does not depend on; the next save tries again."""
        try:
            action()
        except CannotSaveError as error:
            self._warnings.append(f"{error}; until a later save succeeds in it, {consequence}")
        except (UserError, BadCheckpointFileError) as error:
            self._warnings.append(f"{error}; until a later save succeeds, {consequence}")
        except OSError as error:
            where = error.filename or self.store.run.folder
            self._warnings.append(f"{where}: {error.strerror or error}; until a later save succeeds, {consequence}")

    def _keep_best(
        self, path: Path, payload: Mapping[str, Any] | None, record: CheckpointRecord, control: SaveControl
    ) -> None:
        """Make the best files those of the best epoch, also where an earlier attempt was refused."""
        is_best = record.kind is Kind.EPOCH and record.best == record.last
        if not self._best_is_stale and (not is_best or payload is None):
            return
        self._best_is_stale = True
        if is_best and payload is not None:
            self.store.mark_best(path, payload, record, control.check)
        else:
            lost = self.store.restore_best(record, [self.store.run.folder])
            self._warnings += [lost] if lost else []
        self._best_is_stale = False

    def _prune(self, path: Path, record: CheckpointRecord) -> None:
        """Delete what the policy does not keep, once every byte of the newest checkpoint was read back."""
        found = survey_folder(self.store.run.folder, self._known).checkpoints
        self._warnings += prune(files_to_prune(found, record.lineage, self.policy, record.best), path)

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


def _size_of(path: Path) -> int:
    """Return the size of a durable file in bytes, for what is told; 0 where the disk does not say."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_gone(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:  # that is not known
        return False
    return False


def _best_of(record: CheckpointRecord, refused: CheckpointRecord | None) -> EpochMetrics | None:
    """Return the best epoch of those that were saved, which `record.best` is one of, and those that are not yet."""
    rows = (record.best, record.last, refused.last if refused else None)
    known = [row for row in rows if row is not None]
    return min(known, key=lambda row: (rank(row, record.figures), row.epoch), default=None)


def prune(gone: Sequence[Path], newest: Path) -> list[str]:
    """Delete files once the newest checkpoint was read back; return why not, where it is damaged. Raises OSError."""
    damage = broken_seal(newest) if gone else None
    if damage:
        return [f"{newest} is not as it was written: {damage}; nothing older is deleted"]
    for path in gone:
        path.unlink()
    for folder in {path.parent for path in gone}:
        fsync_folder(folder)
    return []
