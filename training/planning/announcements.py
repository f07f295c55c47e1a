"""What is said before training begins: the plan with its reason, the resume summary, the changed settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.checkpoints.history import History, Standing
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.rows import EpochMetrics
from training.planning.learning_rate import rate_text
from training.planning.plan import Plan, Start
from training.planning.save_cost import COST_KEY, SaveCost, cost_text, seconds_text
from training.runs.directory import version_number
from training.runs.mirror_place import mirror_text
from training.settings.changes import Change
from training.settings.options import Options
from training.settings.tasks import Figure
from utils.shell_text import with_path
from utils.terminal_text import RULE, lines_text, printable

if TYPE_CHECKING:
    from training.state.train_state import TrainState


def plan_text(plan: Plan) -> str:
    """Return the plan as it is printed before the first write."""
    lines = [f"Plan: {_what(plan)}", f"  why:         {plan.reason}"]
    if plan.start is not Start.REACHED:  # which writes nothing
        if plan.num_ranks > 1:
            lines.append(f"  processes:   {ranks_text(plan.num_ranks, plan.options)}")
        if plan.options.experiment:
            number = version_number(plan.run.folder.name)
            lines.append(f"  experiment:  {plan.options.experiment}, version {number}")
        copied = f", a copy of {plan.config.copy_of}" if plan.config and plan.config.copy_of else ""
        lines += [
            f"  run folder:  {plan.run.folder}",
            f"  logs:        {plan.run.logs_folder}",
            f"  config:      {plan.run.config}{copied}",
        ]
        if plan.options.mirror:
            lines += [f"  mirrored to: {mirror_text(plan.run.folder, Path(plan.options.mirror))}"]
        lines += [f"  saves:       {saves}"] if (saves := saves_text(plan)) else []
    lines += [f"  note:        {note}" for note in plan.notes]
    return lines_text(lines)


def ranks_text(num_ranks: int, options: Options) -> str:
    """Say how many processes share how many batches.

    >>> ranks_text(4, Options(accumulate_steps=8))
    '4 processes: 8 batches of 16 a step'
    """
    return f"{num_ranks} processes: {options.accumulate_steps} batches of {options.batch_size} a step"


def _what(plan: Plan) -> str:
    match plan.start:
        case Start.FRESH:
            return f"train from epoch 1 to epoch {plan.options.num_epochs}"
        case Start.FROM_WEIGHTS:
            assert plan.source is not None
            return f"train from epoch 1 to epoch {plan.options.num_epochs}, from the weights in {plan.source.path}"
        case Start.RESUME:
            assert plan.checkpoint is not None
            return f"resume {plan.checkpoint.path} at {_resuming_from(plan.checkpoint)}"
        case Start.REACHED:
            assert plan.checkpoint is not None
            return f"nothing to train: {plan.checkpoint.path} has completed {_epochs(plan.checkpoint.epoch)}"


def saves_text(plan: Plan) -> str:
    """Say what --max_lost bounds, and what that costs as far as saves of the run were measured; "" without it."""
    if plan.options.max_lost is None:
        return ""
    held = f"at most {seconds_text(plan.options.max_lost)} of work are lost (--max_lost)"
    cost = SaveCost.from_dict(plan.checkpoint.metadata.get(COST_KEY)) if plan.checkpoint else None
    if cost is None or plan.checkpoint is None:
        return f"{held}; what that costs is said after the first save"
    return f"{held}: {cost_text(plan.options.max_lost - cost.seconds, cost, plan.checkpoint.bytes_on_disk)}"


def reached_text(plan: Plan) -> str:
    """Say that the target is reached, and how to go on."""
    assert plan.checkpoint is not None
    undone = [f"Left undone by a killed process, and done now: {what}." for what in plan.undone]
    return lines_text([*undone, _reached(plan), *untrained_text(plan.untrained, plan.checkpoint.path)])


def untrained_text(changes: Sequence[Change], path: Path) -> list[str]:
    """Say what was asked for and is not what the checkpoint at the target was trained with."""
    if not changes:
        return []
    told = ", ".join(f"{change.name} is {change.old} there and {change.new} here" for change in changes)
    return [
        f"Not trained: what was asked for. {path} was trained with other settings or data: {told}. "
        "To train it: the same command with --fresh_start, and --comment WORD for a folder of its own."
    ]


def _reached(plan: Plan) -> str:
    assert plan.checkpoint is not None
    if plan.checkpoint.epoch < plan.options.num_epochs:
        return (
            f"{stalled_text(plan.checkpoint, plan.checkpoint.figures.first, plan.options.patience)} "
            "To train further, repeat the command with a higher --patience; to start anew, use --fresh_start."
        )
    return (
        f"Target epochs already reached: {plan.checkpoint.epoch} completed, --num_epochs is {plan.options.num_epochs}. "
        "To train further, repeat the command with a higher --num_epochs; to start anew, use --fresh_start."
    )


def stalled_text(standing: Standing, figure: Figure, patience: int) -> str:
    """Say that training ends before its target, and why; `figure` is the one that decides."""
    best, why = standing.best, "none is saved"
    if best:
        value = figure.value_text(best[figure.name])
        why = f"none since epoch {best.epoch} was better than its {figure.label} of {value}"
    return f"Early stopping after epoch {standing.epoch}: {why} (--patience {patience})."


def resume_summary(plan: Plan) -> str:
    """Return the block that says where a resumed run stands."""
    record = plan.checkpoint
    assert record is not None
    target, first = plan.options.num_epochs, record.figures.first
    rows = [
        ("Checkpoint", str(record.path)),
        ("Completed epochs", f"{record.epoch} (step {record.step})"),
        ("Resuming from", _resuming_from(record)),
        ("Target epochs", str(target)),
        ("Remaining epochs", str(target - record.epoch)),
        (f"Best {first.label}", _of_epoch(first, record.best)),
        (f"Last {first.label}", _of_epoch(first, record.last)),
        *((f"Last {one.label}", _in_full(one, record.last)) for one in record.figures.ranking[1:]),
        ("Learning rate", rate_text(record, plan.options)),
    ]
    width = max(18, *(len(f"{name}: ") for name, _ in rows))
    return lines_text([RULE, "RESUME SUMMARY", *(f"  {name + ':':<{width}}{value}" for name, value in rows), RULE])


def _resuming_from(record: CheckpointRecord) -> str:
    within = f" ({record.progress_in_epoch})" if record.batches_done else ""
    return f"epoch {record.epoch + 1}{within}"


def _of_epoch(figure: Figure, row: EpochMetrics | None) -> str:
    return f"{figure.value_text(row[figure.name])} (epoch {row.epoch})" if row else "none yet"


def _in_full(figure: Figure, row: EpochMetrics | None) -> str:
    return f"{row[figure.name]:.6f}{figure.unit}" if row else "none yet"


def training_text(options: Options, state: TrainState, environment: Mapping[str, Any], num_ranks: int = 1) -> str:
    """Say what trains where, and that pairs spoil what normalises by the batch; printed before the first step."""
    each = f" in each of {num_ranks} processes" if num_ranks > 1 else ""
    front_end = f"{options.ssl_model}, " if options.ssl_model else ""
    batches = f", {options.accumulate_steps} batches a step" if options.accumulate_steps > 1 else ""
    note = f"{_OF_PAIRS.format(options.model_type)}\n" if options.pair_batches and state.normalises_by_batch else ""
    return (
        f"{note}Training {options.model_type} ({front_end}{state.num_parameters / 1e6:.1f} M parameters) on "
        f"{environment['device']}, {environment['num_threads']} threads{each}, {options.precision}{batches}"
    )


_OF_PAIRS = (
    "[NOTE] --pair_batches: {} normalises by the batch, so in training it hears each spoof in comparison with its "
    "source, and in evaluation it does not. Where that was measured, it was far worse than without pairs "
    "(docs/spoofs.md): leave --pair_batches out, or take a detector without batch norm, such as ssl_mean."
)


def data_text(num_train: int, num_dev: int, folder: Path, layout: str, division: str, *, notes: Sequence[str]) -> str:
    """Say what will be trained and validated on, as which layout it was read, how it was divided, if it was, and what
    was taken over in reading it."""
    data = f"Data: {num_train} training and {num_dev} validation utterances in {folder}, {layout} layout"
    divided = [f"the two parts: {division}"] if division else []
    return "\n  ".join([data, *divided, *map(printable, notes)])


def stopped_text(signal_name: str, epoch: int, batches_done: int, saved: Path | None) -> str:
    """Say where a stopped run stands and how to go on with it."""
    if saved is None:
        return f"Stopped by {signal_name} before the first step: nothing to save."
    where = f"in epoch {epoch + 1}, after {batches_done} batches" if batches_done else f"after epoch {epoch}"
    return (
        f"Stopped by {signal_name} {where}; saved in {saved}\n"
        f"To go on: the same command with --auto_resume, or --resume {with_path('--model_path', saved)}"
    )


def unsaved_text(reason: str, saved: Path | None) -> str:
    """Say that the state at the end is on no disk, and what is."""
    on_disk = f"the last one is {saved}" if saved else "there is none"
    return f"{reason}; {on_disk}. Make room or mend the disk, then continue with --auto_resume"


def out_of_memory_text(shortage: str, history: History) -> str:
    """Say that training ended because memory ran out, and what takes less of it."""
    within = ""
    if history.under_way.batches_done:  # where another batch size would change the rest of the epoch
        within = " (--batch_size can change only where a run goes on from the end of an epoch)"
    return (
        f"{shortage} after step {history.step}: pass a lower --batch_size, with more --accumulate_steps for a step of "
        f"the same size{within}, or a lower --num_workers, or end other programs."
    )


def ended_text(history: History, path: Path) -> str:
    """Say how a run ended, whose best checkpoint is `path`."""
    best, first = history.best, history.figures.first
    assert best is not None, "a run that has ended has an epoch"
    return (
        f"Done: {_epochs(history.epoch)} in {history.training_seconds:.0f} s of training. Best: epoch {best.epoch} "
        f"with {first.text(best[first.name])}, in {path}"
    )


def changes_text(changes: Sequence[Change]) -> str:
    """Return the block of settings that differ from the checkpoint's, one `name: old -> new` per line."""
    return lines_text(
        [
            "[WARNING] Configuration changes detected:",
            *(f"  - {change.name}: {change.old} -> {change.new}" for change in changes),
            "These changes may affect training consistency.",
        ]
    )


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
