"""Collects what the plan must know: what --model_path names, what the run folder holds, which other runs are near."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from models.names import TYPES_WITH_SETTING
from training.checkpoints.checking import Verdict, check_file
from training.checkpoints.examined import UnusableFile, WeightsFile
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.verified_file import VerifiedFile
from training.runs.directory import RunDirectory
from training.runs.experiments import find_experiment
from training.runs.finding import find_source, what_is_in
from training.runs.mirror_place import refuse_bad_mirror
from training.runs.move_journal import read_move_journal
from training.runs.own_folder import NearRun, Wanted, changes_to, find_run, kept_folder
from training.runs.survey import Candidates, RunFolder, find_latest_usable, survey_folder
from training.runs.untrained import is_untrained
from training.settings.identity import LENGTH, UNLESS_TYPED, run_name, untyped
from training.settings.options import Options
from training.settings.requests import AutoResume, Resume, Train
from utils.errors import UserError
from utils.folders import is_folder

_NOTHING = Candidates(None, ())


@dataclass(frozen=True)
class Facts:
    """What is on disk, as far as this command is concerned.

    `source` is what --model_path names, `run` the folder of the run the options name, `candidates` its latest usable
    checkpoint. `other_length` is the latest usable checkpoint of the same run of another length, and `similar` are runs
    that differ in little. For an experiment `run` is one of its versions: one that is there, or, with `is_new_version`,
    the next, whose folder does not exist. `passed_versions` are newer ones that hold no checkpoint, and `similar` those
    of other settings. `is_left_over` says that `run` is what a start left that ended before anything was saved.
    `opened` is the one file of these that would be loaded: `source`, or a usable candidate.
    """

    options: Options
    run: RunFolder
    source: CheckpointRecord | WeightsFile | None = None
    candidates: Candidates = _NOTHING
    other_length: Candidates = _NOTHING
    other_length_folder: RunFolder | None = None
    similar: tuple[NearRun, ...] = ()
    is_new_version: bool = False
    passed_versions: tuple[Path, ...] = ()
    is_left_over: bool = False
    opened: VerifiedFile | None = field(default=None, repr=False, compare=False)


def collect_facts(command: Train, lost: Sequence[UnusableFile] = ()) -> Facts:
    """Look at the disk; `lost` are checkpoints that --auto_resume does not choose, since they could not be loaded.

    Raises UserError where --model_path names nothing that can be used, and where it is not known what of the run folder
    an interrupted move has still to take: training there could go on from what was to be left behind.
    """
    facts = _collected(command, lost)
    if facts.options.mirror:
        refuse_bad_mirror(facts.run.folder, Path(facts.options.mirror))
    read_move_journal(facts.run.folder)
    return replace(facts, is_left_over=bool(facts.run.entries) and is_untrained(facts.run))


def _collected(command: Train, lost: Sequence[UnusableFile]) -> Facts:
    if isinstance(command, AutoResume):
        experiment = command.options.experiment
        if experiment is None:
            return _facts_for_auto_resume(command, lost)
        return _facts_of_newest_version(command, experiment, lost)
    if command.model_path is None:
        return _facts_of_run(command.options)
    opened = find_source(command.model_path, command.load_checkpoint_type)
    source, options = opened.source, command.options
    if isinstance(command, Resume) and isinstance(source, WeightsFile):
        _refuse_what_is_no_weights_either(source.path)
    if isinstance(command, Resume) and isinstance(source, CheckpointRecord):
        options = effective_options(command, source.options)
    naming = options
    if isinstance(command, Resume) and isinstance(source, CheckpointRecord):
        naming = _naming(command, options, source)
    return _facts_of_run(options, opened, naming=naming, goes_on=isinstance(command, Resume))


def _facts_of_run(
    options: Options, opened: VerifiedFile | None = None, *, naming: Options | None = None, goes_on: bool = False
) -> Facts:
    """Find the run folder that the options name, or `naming`: for an experiment that of `opened` if it goes on.

    Else that is a new one: the next version, or the newest where nothing was trained in it.
    """
    if options.experiment is None:
        source = opened.source if opened and goes_on else None
        kept = kept_folder(source, options) if isinstance(source, CheckpointRecord) else None
        folder = kept or RunDirectory.of(naming or options).folder
    else:
        experiment = find_experiment(options.experiment, options.mirror)
        own = experiment.folder_of(opened.path) if opened and goes_on else None
        if own is None:
            left_over = experiment.left_over()
            new = left_over or RunFolder(experiment.next_folder)
            source = opened.source if opened else None
            return Facts(options, new, source, is_new_version=not left_over, opened=opened)
        folder = own
    if opened and is_folder(folder) and folder.samefile(opened.path.parent):  # however --model_path was typed
        opened = opened.named(folder / opened.path.name)
    return Facts(options, survey_folder(folder), opened.source if opened else None, opened=opened)


def _facts_of_newest_version(command: AutoResume, name: str, lost: Sequence[UnusableFile]) -> Facts:
    """Find the newest version of the settings that are asked for; what was not typed comes from it, as with --resume.

    A version with all of the settings, defaults too, goes before one that has those that were typed. Where none has
    them, the next version is a new run. One without a readable checkpoint may be any run: it is not passed over.
    """
    experiment = find_experiment(name)
    wanted = Wanted(command.options, command.given)
    versions = [run for run in map(survey_folder, experiment.folders) if run.all_checkpoints or run.unusable]
    run = _version_of(wanted, versions)
    near = tuple(
        NearRun(other.folder, changes_to(wanted, other.latest))
        for other in versions[: versions.index(run) if run else None]
        if other.latest
    )
    if run is None:
        opened = find_source(command.model_path, command.load_checkpoint_type) if command.model_path else None
        return replace(_facts_of_run(command.options, opened), similar=near)
    candidates = find_latest_usable(run, lost)
    stored = candidates.usable.options if candidates.usable else command.options
    newer = experiment.folders[: experiment.folders.index(run.folder)]
    passed = tuple(folder for folder in newer if folder not in [one.folder for one in versions])
    options = effective_options(command, stored)
    return Facts(options, run, candidates=candidates, similar=near, passed_versions=passed, opened=candidates.opened)


def _version_of(wanted: Wanted, versions: Sequence[RunFolder]) -> RunFolder | None:
    read = [(run, {change.name for change in wanted.differs_from(run.latest)}) for run in versions if run.latest]
    exact = (run for run, names in read if not names)
    typed = (run for run, names in read if not names & wanted.given)
    unread = (run for run in versions[:1] if not run.latest)
    return next((run for runs in (exact, unread, typed) for run in runs), None)


def _facts_for_auto_resume(command: AutoResume, lost: Sequence[UnusableFile]) -> Facts:
    found = find_run(Wanted(command.options, command.given))
    candidates = find_latest_usable(found.run, lost)
    if candidates.usable:
        options = auto_resume_options(command, candidates.usable.options)
        return Facts(options, found.run, candidates=candidates, opened=candidates.opened)
    if found.run.all_checkpoints or found.run.unusable:
        return Facts(command.options, found.run, candidates=candidates)
    other = find_latest_usable(found.other_length, lost) if found.other_length else _NOTHING
    options, run = command.options, found.run
    if other.usable:
        options = auto_resume_options(command, other.usable.options)
        run = survey_folder(RunDirectory.of(_naming(command, options, other.usable)).folder)
    opened = None
    if command.model_path and not other.usable:
        opened = find_source(command.model_path, command.load_checkpoint_type)
    source = opened.source if opened else None
    return Facts(options, run, source, candidates, other, found.other_length, found.near, opened=opened or other.opened)


def _naming(command: Train, options: Options, source: CheckpointRecord) -> Options:
    """Return the settings that name the folder of a run which goes on from `source` with `options`.

    What of UNLESS_TYPED was not typed comes from the checkpoint, and is in the name if it is in that of its folder.
    """
    folders = {folder.name for folder in source.path.parents}
    for size in range(len(UNLESS_TYPED) + 1):
        for shown in combinations(UNLESS_TYPED, size):
            if run_name(untyped(source.options, but=shown)) in folders:
                return untyped(options, but=command.given.union(shown))
    return options


def effective_options(command: Train, stored: Options) -> Options:
    """Return the settings of a run continued by --resume: what was given wins, the rest comes from the checkpoint."""
    return _continued(command, stored, command.given)


def auto_resume_options(command: Train, stored: Options) -> Options:
    """Return the settings of a run continued by --auto_resume: as by --resume, and its length names the folder."""
    return _continued(command, stored, command.given | {LENGTH})


def _continued(command: Train, stored: Options, names: Set[str]) -> Options:
    """Return the settings of a checkpoint, those named `names` as the command has them.

    For another --model_type, which the plan refuses by that name, whatever belongs to a detector comes from the command
    too: a setting of the checkpoint's detector that the other one has no use for would be blamed instead.
    """
    if "model_type" in names and command.options.model_type != stored.model_type:
        names = names | set(TYPES_WITH_SETTING) | set(command.options.task.unused) | set(stored.task.unused)
    return stored.replaced(**{name: getattr(command.options, name) for name in names})


def _refuse_what_is_no_weights_either(path: Path) -> None:
    """Tell what is wrong with a file that cannot be resumed where it could not even be started from."""
    checked = check_file(path)
    if checked.verdict is not Verdict.WEIGHTS_ONLY:
        raise UserError(f"--model_path {path} cannot be used: {checked.reason}; {what_is_in(path.parent)}")
