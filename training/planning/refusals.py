"""Which differences between a checkpoint and the run that goes on from it are refused, and in which words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.checkpoints.data_digests import AUDIO_SIZES, file_of, is_of_audio, is_of_content, samples_name
from training.checkpoints.record import CheckpointRecord
from training.settings.changes import Change
from training.settings.options import SETTINGS, Options
from training.settings.recipe import ONE_CLASS_LOSS
from training.settings.setting import OnChange
from utils.errors import UserError
from utils.shell_text import with_path
from utils.text_tables import few


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
        f"it, add --comment WORD for a run in a folder of its own, or pass --resume "
        f"{with_path('--model_path', source.path)} to change the settings of this one"
    )


def refuse_breaking(changes: Sequence[Change], source: CheckpointRecord) -> None:
    """Raise UserError for the first change with which `source` cannot go on."""
    for change in changes:
        told = f"--{change.name} is {change.old} in {source.path} and {change.new} now"
        match SETTINGS[change.name].on_change:
            case OnChange.REFUSED if change.name == "freeze_ssl":
                raise UserError(
                    f"{told}: the weights fit, but the optimizer's state does not; drop that flag, or start a new run "
                    f"from the weights: --fresh_start {with_path('--model_path', source.path)}"
                )
            case OnChange.REFUSED if change.name == "swa":
                raise UserError(
                    f"{told}: the mean would lack the epochs so far; drop that flag, or start a new run from the "
                    f"weights: --fresh_start {with_path('--model_path', source.path)}. For a mean of epochs that are "
                    "kept there is --eval --average_checkpoints N"
                )
            case OnChange.REFUSED if change.name == "adam":
                raise UserError(
                    f"{told}: a run keeps the arithmetic that it began with; drop that flag, or start a new run from "
                    f"the weights: --fresh_start {with_path('--model_path', source.path)}"
                )
            case OnChange.REFUSED if change.name == "loss" and ONE_CLASS_LOSS not in (change.old, change.new):
                raise UserError(
                    f"{told}: the epochs so far were validated by another measure; drop that flag, or start a new run "
                    f"from the weights: --fresh_start {with_path('--model_path', source.path)}"
                )
            case OnChange.REFUSED:
                raise UserError(
                    f"{told}: that is another {source.options.task.trains}, which these weights do not fit; "
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
    """Return which parts of the data differ from the checkpoint's.

    `found` has the hashes of the protocols and, where the audio was looked at too, what `audio_identity` gives. Audio
    is compared where the protocols are the same, with what the checkpoint knows of it: nothing, if it is an older one.
    """
    protocols = tuple(
        Change(f"{part} protocol", source.data.get(part, "none")[:12], digest[:12])
        for part, digest in found.items()
        if not is_of_audio(part) and source.data.get(part) != digest
    )
    return protocols or _changed_audio(source, found)


@dataclass(frozen=True)
class _Compared:
    """The files whose content a checkpoint knows, by the names of their digests: how many, and what became of them.

    `encoded_anew` hold the samples of before in other bytes. `replaced` do not, or the checkpoint is one of a version
    that looked at bytes alone.
    """

    number: int
    encoded_anew: tuple[str, ...]
    replaced: tuple[str, ...]


def _compared(known: Mapping[str, str], found: Mapping[str, str]) -> _Compared:
    names = [name for name in found if is_of_content(name) and name in known]
    changed = [name for name in names if known[name] != found[name]]

    def sounds_the_same(name: str) -> bool:
        samples = samples_name(name)
        return samples in known and known[samples] == found.get(samples)

    same = tuple(name for name in changed if sounds_the_same(name))
    return _Compared(len(names), same, tuple(name for name in changed if name not in same))


def _changed_audio(source: CheckpointRecord, found: Mapping[str, str]) -> tuple[Change, ...]:
    """Return what of the audio changed; sizes are no change where files were encoded anew and none was replaced."""
    compared, changes = _compared(source.data, found), []
    replaced = compared.replaced
    sizes = [digests.get(AUDIO_SIZES) for digests in (source.data, found)]
    if None not in sizes and sizes[0] != sizes[1] and (replaced or not compared.encoded_anew):
        changes.append(Change("sizes of the audio files", *sizes))
    if replaced:
        told = few([file_of(name) for name in replaced])
        name = f"content of {len(replaced)} of {compared.number} audio files that were compared ({told})"
        changes.append(Change(name, source.data[replaced[0]], found[replaced[0]]))
    return tuple(changes)


def encoded_anew_text(source: CheckpointRecord, found: Mapping[str, str]) -> str:
    """Say that the audio is the same in other files; "" where it is not, or where the files are those of before."""
    compared = _compared(source.data, found)
    if not compared.encoded_anew or changed_data(source, found):
        return ""
    return (
        f"[NOTE] The audio was encoded anew: {len(compared.encoded_anew)} of {compared.number} files that were "
        "compared have other bytes and the same samples."
    )


def refuse_changed_data(
    source: CheckpointRecord, found: Mapping[str, str], *, accepts_audio: bool = False
) -> tuple[Change, ...]:
    """Return which parts of the data differ from the checkpoint's; in the middle of an epoch that is a UserError.

    The data's identity is the content hash of its protocols, with the sizes and some contents of its audio files, so a
    corpus may move to another folder. `accepts_audio` says that other audio was asked for, which is returned then.
    """
    changes = changed_data(source, found)
    if changes and source.is_mid_epoch:
        middle = f"the checkpoint lies in the middle of epoch {source.epoch + 1}"
        if changes[0].name.endswith("protocol"):
            raise UserError(
                f"the {changes[0].name} is not the one {source.path} was trained on (its content differs), and "
                f"{middle}: pass the same data, or resume from the end of an epoch"
            )
        if accepts_audio:
            return changes
        told = " and the ".join(change.name for change in changes)
        raise UserError(
            f"the audio is not what {source.path} was trained on (the {told} changed, under the same names), and "
            f"{middle}: put the audio of before back, resume from the end of an epoch, or add --accept_changed_audio "
            "to train the rest of the epoch on what is there now"
        )
    return changes
