"""The learning rate as pure functions: of the step, of the settings, and of where a run stands. No torch needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from training.checkpoints.history import History
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.rows import plateau_reductions
from training.settings.options import Options

PLATEAU = "plateau"
_FALLING = ("linear", "cosine")
_LENGTH_OF_EPOCH = ("batch_size", "num_examples", "balanced_batches", "pair_batches")
_SETTINGS_OF_PLATEAU = ("scheduler", "lr", "lr_min", "plateau_patience", "plateau_factor", "warmup_steps")
_COUNTED_AS_TORCH_DOES = 2
"""The `numerics` from which on a plateau is counted as today."""


class Place(Protocol):
    """Where a run stands: what a History and a CheckpointRecord both say."""

    @property
    def step(self) -> int:
        """How many steps are made."""

    @property
    def epoch(self) -> int:
        """How many epochs are completed."""

    @property
    def batches_done(self) -> int:
        """How many batches of the epoch under way are trained."""

    @property
    def batches_per_epoch(self) -> int:
        """How long the epoch under way is."""


def learning_rate_factor(
    scheduler: str, warmup_steps: int, total_steps: int, floor: float = 0.0
) -> Callable[[int], float]:
    """Return the function from steps done to the share of --lr that the next step uses, between 0 and 1.

    The rate rises linearly over the warm-up; then it is constant, or falls linearly or along half a cosine to the share
    `floor` at `total_steps`. For a plateau it is constant here: what its history takes off is taken off --lr, see
    `base_rate`. The cosine is that of AASIST (clovaai/aasist utils.py, `cosine_annealing`).

    >>> factor = learning_rate_factor("linear", warmup_steps=2, total_steps=6)
    >>> [factor(step) for step in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if scheduler not in _FALLING:
            return 1.0
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        share = 1.0 - done if scheduler == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
        return floor + (1.0 - floor) * share

    return factor


def factor_of(options: Options, total_steps: int) -> Callable[[int], float]:
    """Return the `learning_rate_factor` that the options ask for."""
    floor = options.lr_min / options.lr
    return learning_rate_factor(options.scheduler, options.warmup_steps, total_steps, floor)


def planned_steps(
    num_epochs: int, batches_per_epoch: int, place: Place | None = None, *, batches_per_step: int = 1
) -> int:
    """Return how many steps a run will have made at its end, those up to the `place` that it goes on from included.

    An epoch under way keeps its length, even where the data or the batch size of the epochs after it are others. The
    last step of an epoch may have fewer batches.

    >>> planned_steps(num_epochs=4, batches_per_epoch=10), planned_steps(4, 10, batches_per_step=4)
    (40, 12)
    """
    steps_per_epoch = -(-batches_per_epoch // batches_per_step)
    if place is None:
        return num_epochs * steps_per_epoch
    step, epoch = place.step, place.epoch
    if place.batches_done:
        step += -(-(place.batches_per_epoch - place.batches_done) // batches_per_step)
        epoch += 1
    return step + (num_epochs - epoch) * steps_per_epoch


def base_rate(options: Options, history: History) -> float:
    """Return the learning rate before warm-up and schedule: --lr, for a plateau lowered as often as the history says.

    As torch's ReduceLROnPlateau, but by the best epoch's measure, without threshold, and with no state of its own.
    """
    if options.scheduler != PLATEAU:
        return options.lr
    reductions = plateau_reductions(history.epochs, history.figures, options.plateau_patience)
    return max(options.lr_min, float(options.lr * options.plateau_factor**reductions))


def rate_ahead(record: CheckpointRecord, options: Options) -> float | None:
    """Return the rate of the step after a checkpoint, trained on with these options; None where a record cannot tell.

    That is a plateau whose settings changed, or that was counted in another way: it follows from all epochs so far.
    Epochs are taken to be as long as they were, but for another --batch_size.
    """
    if options.task.own_schedule:
        is_kept = options.lr == record.options.lr
        return record.learning_rate if is_kept else record.learning_rate / record.options.lr * options.lr
    if options.scheduler == PLATEAU:
        kept = all(getattr(record.options, name) == getattr(options, name) for name in _SETTINGS_OF_PLATEAU)
        return record.learning_rate if kept and record.numerics >= _COUNTED_AS_TORCH_DOES else None
    ahead = -(-record.batches_per_epoch * record.options.batch_size // options.batch_size)
    total = planned_steps(options.num_epochs, ahead, record, batches_per_step=options.accumulate_steps)
    return options.lr * factor_of(options, total)(record.step)


def is_estimate(record: CheckpointRecord, options: Options) -> bool:
    """Whether `rate_ahead` may be off, since the epochs ahead have another length than those of the checkpoint."""
    if options.scheduler not in _FALLING:
        return False
    return any(getattr(record.options, name) != getattr(options, name) for name in _LENGTH_OF_EPOCH)


def rate_text(record: CheckpointRecord, options: Options) -> str:
    """Return the rate of the next step as the resume summary has it, and the checkpoint's where they differ."""
    rate, was = rate_ahead(record, options), f"{record.learning_rate:.6g}"
    if rate is None:
        return f"counted anew from the epochs so far, for --scheduler {PLATEAU} (it was {was})"
    about = "about " if is_estimate(record, options) else ""
    return f"{about}{rate:.6g} (it was {was})" if _differs(rate, record.learning_rate) else f"{about}{rate:.6g}"


def rate_notes(record: CheckpointRecord, options: Options) -> list[str]:
    """Say before it happens that the learning rate jumps on resume, why, and where it goes then."""
    rate = rate_ahead(record, options)
    if rate is None or not _differs(rate, record.learning_rate):
        return []
    text = f"the learning rate goes from {record.learning_rate:.6g} to {rate:.6g} with the next step"
    if options.scheduler in _FALLING:
        end = f"--scheduler {options.scheduler} now ends with epoch {options.num_epochs}"
        was = record.options
        if was.scheduler == options.scheduler and was.num_epochs != options.num_epochs:
            end += f", not {was.num_epochs}"
        text += f", and falls to {options.lr_min:g} from there: {end}"
    return [text]


def patience_notes(options: Options) -> list[str]:
    """Say that training ends before a plateau can lower the rate of any step."""
    if options.scheduler != PLATEAU or options.patience != options.plateau_patience + 1:
        return []
    return [
        f"--patience {options.patience} ends training with the epoch after which --plateau_patience "
        f"{options.plateau_patience} would lower the rate: pass --patience {options.patience + 1} or more"
    ]


def _differs(one: float, other: float) -> bool:
    return not math.isclose(one, other, rel_tol=1e-6)
