"""Facts in, plan out: fresh, from weights, or resumed, with the reason. A pure function that touches no disk."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from training.checkpoints.examined import UnusableFile, WeightsFile
from training.checkpoints.history import is_stalled
from training.checkpoints.record import CheckpointRecord
from training.planning.agreement import refuse_number_of_ranks
from training.planning.facts import Facts
from training.planning.learning_rate import patience_notes, rate_notes
from training.planning.plan import Plan, Start
from training.planning.refusals import refuse_breaking, refuse_other_run
from training.runs.config_file import run_config
from training.runs.directory import RunDirectory
from training.runs.survey import Candidates, RunFolder
from training.runs.unfinished import left_undone
from training.settings.changes import Change, changed_settings
from training.settings.identity import differences, tells_runs_apart
from training.settings.learning_rates import FORMER_DEFAULT, note_on_rate
from training.settings.options import SETTINGS, Options
from training.settings.requests import AutoResume, NewRun, Resume, Train
from training.settings.setting import OnChange
from utils.errors import UserError
from utils.numerics import changes_since
from utils.shell_text import with_path


def decide(command: Train, facts: Facts, num_ranks: int = 1) -> Plan:
    """Return the plan for a command, given what is on disk; raises UserError where there is no safe one.

    A new run takes one batch a step for each of the processes, unless their number was given.
    """
    plan = _decide_start(command, facts)
    if num_ranks > 1 and plan.checkpoint is None and "accumulate_steps" not in command.given:
        plan = replace(plan, options=plan.options.replaced(accumulate_steps=num_ranks))
    if plan.start is not Start.REACHED:
        refuse_number_of_ranks(plan.options, num_ranks)
    plan = replace(plan, notes=(*plan.notes, *patience_notes(plan.options)))
    return replace(
        plan,
        takes_over=facts.is_left_over,
        config=run_config(command, plan.options),
        opened=facts.opened if plan.source else None,
        accepts_changed_audio=isinstance(command, Resume | AutoResume) and command.accept_changed_audio,
        num_ranks=num_ranks,
    )


def _decide_start(command: Train, facts: Facts) -> Plan:
    match command:
        case Resume():
            return _plan_resume(command, facts)
        case AutoResume():
            return _plan_auto_resume(command, facts)
        case NewRun(fresh_start=True):
            return _plan_new_run(facts, reason="--fresh_start")
        case NewRun():
            return _plan_new_run(facts, reason="none of --resume, --auto_resume, --fresh_start was given")


def _plan_new_run(facts: Facts, reason: str, notes: Sequence[str] = ()) -> Plan:
    entries = () if facts.is_left_over else facts.run.entries
    notes = [*notes, *(_taking_over(facts) or _how_to_return_to(facts.run))]
    start = Start.FRESH
    if not facts.source and (far := _note_on_rate(facts.options)):
        notes += [far]
    if facts.source:
        start = Start.FROM_WEIGHTS
        reason = f"weights of {facts.source.path}, new optimizer ({reason})"
        notes += _architecture_notes(facts.source, facts.options)
    return Plan(
        start,
        reason,
        facts.options,
        _directory(facts),
        facts.source,
        facts.run.entries,
        entries,
        notes=tuple(notes),
        is_new_version=facts.is_new_version,
    )


def _note_on_rate(options: Options) -> str:
    return note_on_rate(options.lr, options.model_type, is_pretrained=options.is_fine_tuning)


def _directory(facts: Facts) -> RunDirectory:
    return RunDirectory(facts.run.folder, facts.options.comment, facts.options.task)


def _plan_resume(command: Resume, facts: Facts) -> Plan:
    if isinstance(facts.source, WeightsFile):
        raise UserError(
            f"--resume {facts.source.path}: this file holds weights only (an older format, or best_model_eer), and no "
            "optimizer, epoch or random state to resume from: to start a new run from it, drop --resume and "
            "keep --model_path"
        )
    assert facts.source is not None
    reason = f"--resume {with_path('--model_path', command.model_path)}"
    if command.model_path.name != facts.source.path.name:
        reason += f" (its {command.load_checkpoint_type} checkpoint)"
    if command.config and command.config.resume_from == command.model_path:
        reason += f", as checkpoint.resume_from in {command.config.path} says"
    plan = _continue_from(facts.source, facts, reason)
    untrained = tuple(change for change in plan.changes if tells_runs_apart(change.name))
    return replace(plan, untrained=untrained if plan.start is Start.REACHED else ())


def _plan_auto_resume(command: AutoResume, facts: Facts) -> Plan:
    unused = f"--model_path {command.model_path} is not used: the run has a checkpoint to continue from"
    notes = [unused] if command.model_path else []
    notes += [f"passed over {folder}: it holds no checkpoint" for folder in facts.passed_versions]
    in_experiment = facts.options.experiment is not None
    notes += _other_versions(facts) if in_experiment else []
    if facts.candidates.usable:
        reason = "--auto_resume found it as the latest usable checkpoint"
        plan = _continue_from(facts.candidates.usable, facts, reason, notes + _passed_over(facts.candidates))
        return _with_others_settings(plan, command, facts)
    new_run = "start the next version" if facts.options.experiment else "move them aside and start"
    _refuse_if_all_unusable(facts.candidates, facts.run.folder, new_run)
    other = facts.other_length
    if other.usable:
        reason = f"--auto_resume: {_same_run(other.usable, facts.options)}, so it goes on here"
        plan = _continue_from(other.usable, facts, reason, notes + _passed_over(other))
        return _with_others_settings(plan, command, facts)
    if facts.other_length_folder:
        _refuse_if_all_unusable(other, facts.other_length_folder.folder)
    near = () if in_experiment else facts.similar  # named already
    similar = [f"{run.folder} differs in {_differing(run.changes)}" for run in near]
    return _plan_new_run(facts, "--auto_resume found no checkpoint of this run", [*notes, *similar])


def _other_versions(facts: Facts) -> list[str]:
    return [f"{run.folder} is another run: it differs in {_differing(run.changes)}" for run in facts.similar]


def _same_run(source: CheckpointRecord, options: Options) -> str:
    """Say in what a run of another length differs from the one asked for."""
    names = [f"--{change.name}" for change in changed_settings(source.options, options)]
    return f"{source.path.parent} has the same settings but for {' and '.join(names)}"


def _differing(changes: Sequence[Change]) -> str:
    return ", ".join(f"--{change.name} ({_shown(change.old)} there)" for change in changes)


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)


def _with_others_settings(plan: Plan, command: AutoResume, facts: Facts) -> Plan:
    """Say which settings of a run found by its name are not those asked for; refuse what was typed to be others.

    In an experiment, what was not typed is the version's. In models/ the name says what is asked for, defaults too, and
    a run that was never trained so is not reported as trained.
    """
    source = plan.checkpoint
    assert source is not None
    other = differences(source.options, command.options, command.given)
    refuse_other_run([change for change in other if change.name in command.given], source)
    former = [change for change in other if change.name == "lr" and change.old == FORMER_DEFAULT]
    notes = [
        f"--{change.name} {_shown(change.old)} is that of {source.path.parent}; it was not typed, and a new run would "
        f"have {_shown(change.new)}{', a default that changed' if change in former else ''}"
        for change in other
    ]
    untrained = [change for change in other if change not in former]
    is_untrained = plan.start is Start.REACHED and facts.options.experiment is None
    return replace(plan, notes=(*plan.notes, *notes), untrained=tuple(untrained) if is_untrained else ())


def _passed_over(candidates: Candidates) -> list[str]:
    return [f"passed over {file.path}: {file.reason}" for file in candidates.passed_over]


def _refuse_if_all_unusable(candidates: Candidates, folder: Path, new_run: str = "move them aside and start") -> None:
    if candidates.passed_over:
        raise UserError(
            f"--auto_resume: none of the checkpoints in {folder} can be used: {_named(candidates.passed_over)}; "
            f"pass --fresh_start to {new_run} at epoch 1"
        )


def _named(files: Sequence[UnusableFile]) -> str:
    return "; ".join(f"{file.path.name}: {file.reason}" for file in files)


def _continue_from(source: CheckpointRecord, facts: Facts, reason: str, notes: Sequence[str] = ()) -> Plan:
    """Plan to continue from a checkpoint, in its own folder or another one."""
    options = facts.options
    changes = changed_settings(source.options, options)
    differing = changes_since(source.numerics, source.options.as_dict())
    notes = [*notes, *(f"this version computes differently: {change}" for change in differing)]
    refuse_breaking(changes, source)
    stalled = not source.batches_done and is_stalled(source, options.patience)
    if source.epoch >= options.num_epochs or stalled:
        undone = left_undone(facts.run, source, options)
        return Plan(
            Start.REACHED,
            reason,
            options,
            _directory(facts),
            source,
            facts.run.entries,
            changes=changes,
            notes=tuple(notes),
            undone=undone,
        )
    notes = [*notes, *rate_notes(source, options)]
    elsewhere = source.path.parent != facts.run.folder
    notes += _taking_over(facts)
    aside = () if facts.is_left_over else entries_past(source, facts.run)
    if aside:
        damaged = {file.path for file in facts.candidates.passed_over}
        notes = [*notes, *_how_to_return_to(facts.run, damaged)]
    was_at = "" if elsewhere else _earlier_place(source, facts.run)
    if was_at:
        notes.append(
            f"{source.path.name} was written in {was_at}, and lies in {facts.run.place} now: training goes on here as "
            "a branch, under a run id of its own, since the run may go on there too"
        )
    return Plan(
        Start.RESUME,
        reason,
        options,
        _directory(facts),
        source,
        facts.run.entries,
        aside,
        elsewhere,
        changes,
        tuple(notes),
        facts.is_new_version,
        was_at=was_at,
    )


def _earlier_place(source: CheckpointRecord, run: RunFolder) -> str:
    """Return where the folder of a checkpoint was when it was written; "" where it is there, or that is not known."""
    return source.place if run.place and source.place != run.place else ""


def entries_past(source: CheckpointRecord, run: RunFolder) -> tuple[str, ...]:
    """Return the names in a run folder that lie past a checkpoint or belong to another run; () where nothing does.

    The best weights of an earlier epoch stay: a process that was killed did not come to those of a better one, and the
    next start does. Where something moves, the training log and the heatmaps of later epochs go with it; the log of the
    epochs so far is written anew from the checkpoint's history.
    """

    def is_past(record: CheckpointRecord) -> bool:
        return record.position > source.position or record.run_id != source.run_id_at(record.step)

    kept = {record.path.name for record in run.all_checkpoints if not is_past(record)}
    past = {record.path.name for record in run.all_checkpoints if is_past(record)}
    if not kept and source.path.parent != run.folder:
        return run.entries  # a run of its own: all of it
    best_moves = run.best is not None and is_past(run.best)
    best_weights = {file.path.name: file.record for file in run.weights if file.record and file.is_best}
    past |= {name for name, record in best_weights.items() if best_moves or is_past(record)}
    if not past:
        return ()
    kept |= {file.path.name for file in run.weights} | {file.path.name for file in run.unusable}
    kept |= {file.path.name for file in run.frozen}  # what moves finds them here, in the folder around its own
    kept -= past
    kept |= {f"attention_epoch_{epoch}" for epoch in range(1, source.epoch + 1)}
    return tuple(name for name in run.entries if name not in kept)


def _architecture_notes(source: CheckpointRecord | WeightsFile, options: Options) -> list[str]:
    if source.options is None:
        return []
    changes = changed_settings(source.options, options)
    return [
        f"{source.path.name} was trained with --{change.name} {change.old}, this run has {change.new}"
        for change in changes
        if SETTINGS[change.name].on_change is OnChange.REFUSED and SETTINGS[change.name].group != "machine"
    ]


def _taking_over(facts: Facts) -> list[str]:
    if not facts.is_left_over:
        return []
    return [f"a start that ended before it saved anything left {facts.run.folder}: this one takes it over"]


def _how_to_return_to(run: RunFolder, damaged: Container[Path] = ()) -> list[str]:
    """Say where what is in the way is moved, and how to go on with it."""
    if not run.entries:
        return []
    version = run.folder / f"version_{run.next_version}"
    if run.latest is None or run.latest.path in damaged:
        return [f"what is in the way in {run.folder} is moved aside, into {version}"]
    return [
        f"the earlier training in {run.folder} is moved aside, into {version}; "
        f"to go on with it: python main.py --resume {with_path('--model_path', version / run.latest.path.name)}"
    ]
