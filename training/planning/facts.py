"""Collects what the plan must know: what --model_path names, what the run folder holds, which other runs are near."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from models.names import TYPES_WITH_SETTING
from training.checkpoints.checking import Verdict, check_file
from training.checkpoints.record import CheckpointRecord, WeightsFile
from training.checkpoints.verified_file import VerifiedFile
from training.runs.directory import RunDirectory, run_tag
from training.runs.experiments import find_experiment
from training.runs.finding import find_source, what_is_in
from training.runs.survey import (
    Candidates,
    RunFolder,
    find_latest_usable,
    newest_record,
    other_run_folders,
    survey_folder,
)
from training.settings.options import Options
from training.settings.requests import AutoResume, Resume, Train
from utils.errors import UserError

_TAG_SETTINGS = (
    "model_type",
    "track",
    "loss",
    "num_epochs",
    "batch_size",
    "lr",
    "group_size",
    "use_contrastive",
    "comment",
)
_NEAR_SETTINGS = frozenset({"lr", "batch_size", "comment"})
_NOTHING = Candidates(None, ())


@dataclass(frozen=True)
class Facts:
    """What is on disk, as far as this command is concerned.

    `source` is what --model_path names, `run` the folder of the run the options name, `candidates` its latest usable
    checkpoint. `other_length` is the latest usable checkpoint of a run that differs in nothing but --num_epochs, and
    `similar` are the folders of runs that differ in learning rate, batch size or comment only. For an experiment `run`
    is one of its versions: one that is there, or, with `is_new_version`, the next, whose folder does not exist.
    `passed_versions` are newer ones that hold no checkpoint. `opened` is the one file of these that would be loaded:
    `source`, or a usable candidate.
    """

    options: Options
    run: RunFolder
    source: CheckpointRecord | WeightsFile | None = None
    candidates: Candidates = _NOTHING
    other_length: Candidates = _NOTHING
    other_length_folder: RunFolder | None = None
    similar: tuple[Path, ...] = ()
    is_new_version: bool = False
    passed_versions: tuple[Path, ...] = ()
    opened: VerifiedFile | None = field(default=None, repr=False, compare=False)


def collect_facts(command: Train) -> Facts:
    """Look at the disk; raises UserError where --model_path names nothing that can be used."""
    if isinstance(command, AutoResume):
        experiment = command.options.experiment
        if experiment is None:
            return _facts_for_auto_resume(command)
        return _facts_of_newest_version(command, experiment)
    if command.model_path is None:
        return _facts_of_run(command.options)
    opened = find_source(command.model_path, command.load_checkpoint_type)
    source, options = opened.source, command.options
    if isinstance(command, Resume) and isinstance(source, WeightsFile):
        _refuse_what_is_no_weights_either(source.path)
    if isinstance(command, Resume) and isinstance(source, CheckpointRecord):
        options = effective_options(command, source.options)
    return _facts_of_run(options, opened, goes_on=isinstance(command, Resume))


def _facts_of_run(options: Options, opened: VerifiedFile | None = None, *, goes_on: bool = False) -> Facts:
    """Find the run folder that the options name: for an experiment that of `opened` if it goes on, else a new one."""
    if options.experiment is None:
        folder = RunDirectory.of(options).folder
    else:
        experiment = find_experiment(options.experiment)
        own = experiment.folder_of(opened.path) if opened and goes_on else None
        if own is None:
            source = opened.source if opened else None
            return Facts(options, RunFolder(experiment.next_folder), source, is_new_version=True, opened=opened)
        folder = own
    if opened and folder.is_dir() and folder.samefile(opened.path.parent):  # however --model_path was typed
        opened = opened.named(folder / opened.path.name)
    return Facts(options, survey_folder(folder), opened.source if opened else None, opened=opened)


def _facts_of_newest_version(command: AutoResume, name: str) -> Facts:
    """Find the newest version with a checkpoint; no setting is part of its name, so they count as with --resume."""
    experiment = find_experiment(name)
    run = experiment.newest_with_checkpoints()
    if run is None:
        opened = find_source(command.model_path, command.load_checkpoint_type) if command.model_path else None
        return _facts_of_run(command.options, opened)
    candidates = find_latest_usable(run)
    stored = candidates.usable.options if candidates.usable else command.options
    passed = experiment.folders[: experiment.folders.index(run.folder)]
    options = effective_options(command, stored)
    return Facts(options, run, candidates=candidates, passed_versions=passed, opened=candidates.opened)


def _facts_for_auto_resume(command: AutoResume) -> Facts:
    run = survey_folder(RunDirectory.of(command.options).folder)
    candidates = find_latest_usable(run)
    if candidates.usable:
        options = auto_resume_options(command, candidates.usable.options)
        return Facts(options, run, candidates=candidates, opened=candidates.opened)
    if run.all_checkpoints or run.unusable:
        return Facts(command.options, run, candidates=candidates)
    near = [(folder, newest_record(folder)) for folder in other_run_folders(run.folder)]
    same = [
        folder
        for folder, record in near
        if record and run_tag(command.options.replaced(num_epochs=record.options.num_epochs)) == folder.name
    ]
    similar = tuple(f for f, record in near if record and f not in same and _is_near(command.options, record.options))
    longest = max((survey_folder(folder) for folder in same), key=_progress, default=None)
    other = find_latest_usable(longest) if longest else _NOTHING
    options = auto_resume_options(command, other.usable.options) if other.usable else command.options
    opened = None
    if command.model_path and not other.usable:
        opened = find_source(command.model_path, command.load_checkpoint_type)
    source = opened.source if opened else None
    return Facts(options, run, source, candidates, other, longest, similar, opened=opened or other.opened)


def _progress(run: RunFolder) -> tuple[int, int]:
    return run.latest.position if run.latest else (-1, -1)


def _is_near(wanted: Options, found: Options) -> bool:
    return all(getattr(wanted, name) == getattr(found, name) for name in _TAG_SETTINGS if name not in _NEAR_SETTINGS)


def effective_options(command: Train, stored: Options) -> Options:
    """Return the settings of a run continued by --resume: what was given wins, the rest comes from the checkpoint."""
    return _continued(command, stored, command.given)


def auto_resume_options(command: Train, stored: Options) -> Options:
    """Return the settings of a run continued by --auto_resume: the flags and their defaults name the folder."""
    return _continued(command, stored, command.given | set(_TAG_SETTINGS))


def _continued(command: Train, stored: Options, names: Set[str]) -> Options:
    """Return the settings of a checkpoint, those named `names` as the command has them.

    For another --model_type, which the plan refuses by that name, whatever belongs to a detector comes from the command
    too: a setting of the checkpoint's detector that the other one has no use for would be blamed instead.
    """
    if "model_type" in names and command.options.model_type != stored.model_type:
        names = names | set(TYPES_WITH_SETTING)
    return stored.replaced(**{name: getattr(command.options, name) for name in names})


def _refuse_what_is_no_weights_either(path: Path) -> None:
    """Tell what is wrong with a file that cannot be resumed where it could not even be started from."""
    checked = check_file(path)
    if checked.verdict is not Verdict.WEIGHTS_ONLY:
        raise UserError(f"--model_path {path} cannot be used: {checked.reason}; {what_is_in(path.parent)}")
