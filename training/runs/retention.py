"""Which checkpoint files of a run stay, and why: pure functions over records. Deletes nothing.

What stays is the union of what each rule keeps. The rules see the files of the run itself and no others: not those of
an earlier run or of another future of this one, not the best and last files, and not what a user copied or renamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.checkpoints.history import Lineage
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.rows import EpochMetrics
from training.settings.name_template import reserved_names
from training.settings.options import Options

_DEFAULT_LAST_STEPS = 5
LAST_BY_TIME = 2
"""How many of the saves that only the clock asked for stay, apart from what the flags keep."""


@dataclass(frozen=True)
class RetentionPolicy:
    """What the flags of the same names ask for."""

    save_freq: int = 1
    milestones: tuple[int, ...] = ()
    keep_last_n: int | None = None
    save_best_only: bool = False

    @classmethod
    def of(cls, options: Options) -> RetentionPolicy:
        """Return the policy that these options ask for."""
        return cls(options.save_freq, options.milestones, options.keep_last_n, options.save_best_only)

    def asks_for(self, epoch: int) -> bool:
        """Whether this epoch's checkpoint was asked for by its number: a milestone, or one of every save_freq > 1."""
        return epoch in self.milestones or (self.save_freq > 1 and epoch % self.save_freq == 0)

    @property
    def last_epochs(self) -> int:
        """How many of the last epoch checkpoints stay whatever their number; by default save_freq alone decides."""
        return self.keep_last_n or 0

    @property
    def last_steps(self) -> int:
        """How many of the last step checkpoints stay."""
        return self.keep_last_n or _DEFAULT_LAST_STEPS

    @property
    def epoch_stride(self) -> int | None:
        """Every how many epochs a checkpoint stays for good; None where none does.

        save_freq 1 is the default, which keep_last_n alone must be able to undo.
        """
        return self.save_freq if self.save_freq > 1 or self.keep_last_n is None else None


def files_to_prune(
    records: Iterable[CheckpointRecord],
    lineage: Lineage,
    policy: RetentionPolicy,
    best: EpochMetrics | None,
) -> list[Path]:
    """Return the files to delete, oldest first.

    `lineage` is that of the run as it is now and `best` its best epoch so far. What a process was started from is a
    checkpoint like others: it is needed until the next one is durable, and this is called after that.
    With save_best_only this names even the furthest checkpoint: call it once the last and best files are durable.
    """
    own = own_records(records, lineage)
    kept = retained(own, policy, best)
    return [record.path for record in own if record.path not in kept]


def left_to_prune(records: Iterable[CheckpointRecord], newest: CheckpointRecord, asked_for: Options) -> list[Path]:
    """Return what the process that saved `newest` was killed before it deleted; not what is to stay by now."""
    own = own_records(records, newest.lineage)
    policies = [RetentionPolicy.of(options) for options in (newest.options, asked_for)]
    kept = {path for policy in policies for path in retained(own, policy, newest.best)}
    return [record.path for record in own if record.path not in kept]


def own_records(records: Iterable[CheckpointRecord], lineage: Lineage) -> list[CheckpointRecord]:
    """Return the checkpoints of this run that still have the name under which it saved them, oldest first."""
    own = [
        record
        for record in records
        if record.kind in (Kind.EPOCH, Kind.STEP)
        and record.belongs_to(lineage)
        and record.path.name == record.name  # a name of "" is unknown: such a file may be anybody's
        and not record.name.startswith(reserved_names(record.description))
    ]
    return sorted(own, key=_age)


def retained(
    records: Sequence[CheckpointRecord], policy: RetentionPolicy, best: EpochMetrics | None
) -> dict[Path, str]:
    """Return the files that stay, each with the first reason that keeps it; a file that is not there goes.

    `records` are the checkpoints of one run, see `own_records`.
    """
    if policy.save_best_only:
        return {}
    ordered = sorted(records, key=_age)
    furthest = ordered[-1].position if ordered else None
    epochs = [record for record in ordered if record.kind is Kind.EPOCH]
    by_time = [record for record in ordered if record.kind is Kind.STEP and record.saved_by_time]
    steps = _without_twins(record for record in ordered if record.kind is Kind.STEP and not record.saved_by_time)
    last_epochs = {record.path for record in epochs[max(0, len(epochs) - policy.last_epochs) :]}
    last_steps = {record.path for record in steps[-policy.last_steps :]}
    last_by_time = {record.path for record in by_time[-LAST_BY_TIME:]}

    def reason(record: CheckpointRecord) -> str:
        is_epoch = record.kind is Kind.EPOCH
        rules = (
            (record.position == furthest and (is_epoch or record in steps or record in by_time), "the furthest"),
            (is_epoch and best is not None and record.epoch == best.epoch, "the best epoch"),
            (is_epoch and record.epoch in policy.milestones, "a milestone"),
            (is_epoch and _is_multiple(record.epoch, policy.epoch_stride), _stride_text(policy.save_freq)),
            (record.path in last_epochs, f"one of the last {policy.last_epochs} epochs"),
            (record.path in last_steps, f"one of the last {policy.last_steps} steps"),
            (record.path in last_by_time, f"one of the last {LAST_BY_TIME} by time"),
        )
        return next((text for keeps, text in rules if keeps), "")

    return {record.path: why for record in ordered if (why := reason(record))}


def _without_twins(steps: Iterable[CheckpointRecord]) -> list[CheckpointRecord]:
    """Return one checkpoint for each step: of two, the one with validation figures.

    A run that is stopped between a step and its validation saves that step twice, under two names.
    """
    by_step: dict[int, CheckpointRecord] = {}
    for record in steps:
        if record.step not in by_step or record.validated:
            by_step[record.step] = record
    return list(by_step.values())


def _age(record: CheckpointRecord) -> tuple[tuple[int, int], str]:
    return record.position, record.path.name


def _is_multiple(epoch: int, stride: int | None) -> bool:
    return stride is not None and epoch % stride == 0


def _stride_text(save_freq: int) -> str:
    return "every epoch stays" if save_freq == 1 else f"a multiple of {save_freq} epochs"
