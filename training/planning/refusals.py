"""Which differences between a checkpoint and the run that goes on from it are refused, and in which words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.checkpoints.record import CheckpointRecord
from training.settings.changes import Change
from training.settings.options import SETTINGS, Options
from training.settings.recipe import ONE_CLASS_LOSS
from training.settings.setting import OnChange
from utils.errors import UserError


def refuse_verb(flag: str, path: Path, options: Options | None) -> None:
    """Raise UserError where what was trained with these settings has no use for a verb, such as --score.

    `options` are those of the file `path`; None for a file that does not say them.
    """
    why = options.task.refuses.get(flag) if options else None
    if options and why:
        raise UserError(f"{flag} {path}: that is a model of --model_type {options.model_type}, and {why}")


def refuse_other_run(typed: Sequence[Change], source: CheckpointRecord) -> None:
    """Raise UserError where the run in a folder was trained with other settings than those that were typed."""
    if not typed:
        return
    told = ", ".join(f"--{change.name} is {change.old} there and {change.new} now" for change in typed)
    raise UserError(
        f"{source.path.parent} has the name of this run and holds another one: {told}; type its settings to go on with "
        f"it, add --comment WORD for a run in a folder of its own, or pass --resume --model_path {source.path} to "
        "change the settings of this one"
    )


def refuse_breaking(changes: Sequence[Change], source: CheckpointRecord) -> None:
    """Raise UserError for the first change with which `source` cannot go on."""
    for change in changes:
        told = f"--{change.name} is {change.old} in {source.path} and {change.new} now"
        match SETTINGS[change.name].on_change:
            case OnChange.REFUSED if change.name == "freeze_ssl":
                raise UserError(
                    f"{told}: the weights fit, but the optimizer's state does not; drop that flag, or start a new run "
                    f"from the weights: --fresh_start --model_path {source.path}"
                )
            case OnChange.REFUSED if change.name == "swa":
                raise UserError(
                    f"{told}: the mean would lack the epochs so far; drop that flag, or start a new run from the "
                    f"weights: --fresh_start --model_path {source.path}. For a mean of epochs that are kept there is "
                    "--eval --average_checkpoints N"
                )
            case OnChange.REFUSED if change.name == "loss" and ONE_CLASS_LOSS not in (change.old, change.new):
                raise UserError(
                    f"{told}: the epochs so far were validated by another measure; drop that flag, or start a new run "
                    f"from the weights: --fresh_start --model_path {source.path}"
                )
            case OnChange.REFUSED:
                raise UserError(
                    f"{told}: that is another detector, which these weights do not fit; "
                    f"drop --{change.name}, or start a new run with --fresh_start"
                )
            case OnChange.BREAKS_EPOCH if source.is_mid_epoch:
                raise UserError(
                    f"{told}: not possible in the middle of epoch {source.epoch + 1}, whose batches would change; "
                    f"drop --{change.name}, or resume from a checkpoint at the end of an epoch"
                )
            case _:
                pass


def changed_data(source: CheckpointRecord, found: Mapping[str, str]) -> tuple[Change, ...]:
    """Return which parts of the data differ from the checkpoint's."""
    return tuple(
        Change(f"{part} protocol", source.data.get(part, "none")[:12], digest[:12])
        for part, digest in found.items()
        if source.data.get(part) != digest
    )


def refuse_changed_data(source: CheckpointRecord, found: Mapping[str, str]) -> tuple[Change, ...]:
    """Return which parts of the data differ from the checkpoint's; in the middle of an epoch that is a UserError.

    The data's identity is the content hash of its protocols, so a corpus may move to another folder.
    """
    changes = changed_data(source, found)
    if changes and source.is_mid_epoch:
        raise UserError(
            f"the {changes[0].name} is not the one {source.path} was trained on (its content differs), and the "
            f"checkpoint lies in the middle of epoch {source.epoch + 1}: pass the same data, or resume from the end of "
            "an epoch"
        )
    return changes
