"""Carries out a plan: opens the data, builds the detector, prepares the run folder, trains, says how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from training.checkpoints.frozen_reference import find_frozen
from training.checkpoints.history import History
from training.checkpoints.record import CheckpointRecord, examine
from training.checkpoints.verified_file import open_verified
from training.data.audio_identity import audio_identity
from training.data.batches import TrainingBatches, ValidationBatches
from training.data.database import corpus_place, demo_to_make
from training.loop.preparation import make_run_folder, prepare_folder
from training.loop.shared_folder import refuse_unshared_folder
from training.loop.starting_state import build, refusing_odd, starting_state, trained_networks
from training.loop.taking_over import taken_over
from training.loop.trainer import Trainer
from training.planning.agreement import refuse_differences
from training.planning.announcements import (
    changes_text,
    data_text,
    ended_text,
    stalled_text,
    stopped_text,
    training_text,
    unsaved_text,
)
from training.planning.plan import Plan, Start
from training.planning.refusals import encoded_anew_text, refuse_changed_data
from training.planning.save_cost import COST_KEY, SaveCost
from training.planning.sessions import begin_session, names_trained_on
from training.reports.csv_table import CsvTable
from training.reports.mirror_report import MirrorReport
from training.reports.page.writing import RunPage
from training.reports.reporting import Reporter, Reports
from training.reports.story import Moment, Story, story_in, story_of
from training.reports.tensorboard_file import TensorBoardFile
from training.reports.wandb_run import WandbRun
from training.runs.config_file import write_config
from training.runs.directory import logs_folder_of
from training.runs.lock import RunLock
from training.runs.names import CheckpointNames
from training.runs.retention import RetentionPolicy, left_to_prune
from training.runs.survey import is_copy, place_of, survey_folder
from training.runs.trained_names import TrainedNames, write_trained_names
from training.saving.background_saving import (
    BackgroundSaver,
    DirectSaver,
    Saver,
    fence_before_updates,
    tensors_that_steps_change,
)
from training.saving.commit import Committer, Outcome, prune
from training.saving.dead_disk import DeadDiskError
from training.saving.mirror import END_WAITS_S, Mirror
from training.saving.save_times import SaveTimes
from training.saving.store import CheckpointStore, load_payload
from training.settings.changes import Change
from training.settings.options import Options
from training.settings.wandb import WandbIdentity, refuse_missing_package
from training.state.snapshot import RunFacts
from training.state.train_state import TrainState
from training.tasks.registry import make_task
from training.tasks.task import Built, Task
from utils.console import say
from utils.corpora import Corpus, CorpusPart, find_corpus, limit_examples
from utils.ending import leave_now
from utils.errors import EXIT_FAILURE, UserError
from utils.interruption import StopRequest, stop_on_signals
from utils.machine import (
    choose_device,
    describe_environment,
    differences_that_may_change_bits,
    make_deterministic,
    own_threads,
)
from utils.ranks import Alone, Ranks
from utils.waiting import NEVER, say_aside


@dataclass(frozen=True)
class _Data:
    training: TrainingBatches
    validation: ValidationBatches
    validation_part: CorpusPart
    identity: dict[str, str]
    names: TrainedNames


def carry_out(plan: Plan, ranks: Ranks) -> int:
    """Train as planned and return the exit code; nothing in the run folder changes before every check has passed."""
    options = plan.options
    if options.logs_to_wandb:
        refuse_missing_package()
    refuse_unshared_folder(plan.run.folder.parent, ranks)
    task = _task_of(plan, ranks)
    data = _open_data(options, task, ranks)
    refuse_differences(ranks, data.identity)
    changed = _changed_data(plan, data.identity)
    start = build(plan, task, ranks)
    state = starting_state(plan, task, start, data.training.num_batches_per_epoch, ranks)
    facts = _facts(plan, task, start.built, data)
    if plan.checkpoint:
        differing = differences_that_may_change_bits(plan.checkpoint.metadata, facts.environment)
        if differing:
            say(f"[NOTE] Not the machine or torch of before ({', '.join(differing)}): the last bits may differ.")
    weights = plan.source.path if plan.source else None
    session = ranks.broadcast(lambda: begin_session(plan.checkpoint, options, facts.environment, changed, weights))
    state.history.sessions.append(session)
    source = plan.checkpoint.path if plan.checkpoint else weights
    names = ranks.broadcast(lambda: names_trained_on(data.names, state.history.sessions, source))
    lock, times = RunLock(plan.run.lock), _save_times(plan, state)
    store = CheckpointStore(plan.run, CheckpointNames.of(options), lock, facts.frozen)
    with (
        closing(data.training),
        closing(data.validation),
        _prepared(plan, store, lock, start.payload, state.history, names=names, ranks=ranks) as held,
        _mirrored(plan, ranks) as mirror,
        _told(plan, task, state, data.validation_part, ranks, mirror=mirror, times=times) as reports,
        stop_on_signals(announces=ranks.is_first) as stop,
        _saving(plan, store, state, task.device, names, stop=stop, ranks=ranks) as (saver, committer),
    ):
        reports.stop = stop
        ranks.watch(stop)
        trainer = Trainer(
            state=state,
            task=task,
            training=data.training,
            validation=data.validation,
            saver=saver,
            committer=committer,
            reports=reports,
            facts=facts,
            stop=stop,
            last_saved=plan.checkpoint.path if plan.checkpoint else None,
            draw=lambda is_last: _draw(plan, task, state, data.validation_part, is_last=is_last, stop=stop),
            ranks=ranks,
            times=times,
            take_over=lambda: taken_over(ranks, lambda: held.enter_context(lock), plan.run.folder, committer, state),
        )
        del start  # what its payload holds was copied into the state
        say(training_text(options, state.num_parameters, facts.environment, ranks.count))
        try:
            trainer.train()
        except DeadDiskError as error:  # nothing that comes below may wait for that disk, too
            say_aside(f"error: {unsaved_text(str(error), trainer.last_saved)}")
            leave_now(stop.exit_code)
        if stop.signal is not None and not trainer.is_done:
            reports.interrupted = f"by {stop.signal.name}"
        if trainer.is_done and not trainer.not_saved:
            reports.tell(Moment.COMPLETED)
            if mirror:
                mirror.waits_s = END_WAITS_S
    if trainer.not_saved:
        raise UserError(unsaved_text(trainer.not_saved, trainer.last_saved), stop.exit_code or EXIT_FAILURE)
    history = state.history
    if not trainer.is_done:
        assert stop.signal is not None
        say(stopped_text(stop.signal.name, history.epoch, history.under_way.batches_done, trainer.last_saved))
        return stop.exit_code
    if history.epoch < options.num_epochs:
        say(stalled_text(history, history.figures.first, options.patience))
    say(ended_text(history, plan.run.best_checkpoint))
    return 0


def _changed_data(plan: Plan, found: Mapping[str, str]) -> tuple[Change, ...]:
    """Return, and say, what of the data is not what the checkpoint was trained on."""
    if plan.checkpoint is None:
        return ()
    changed = refuse_changed_data(plan.checkpoint, found, accepts_audio=plan.accepts_changed_audio)
    if told := changes_text(changed) if changed else encoded_anew_text(plan.checkpoint, found):
        say(told)
    return changed


def finish(plan: Plan) -> None:
    """Do what a killed process left undone in the folder of a run that has reached its target, and train nothing."""
    assert plan.checkpoint is not None
    payload = load_payload(plan.opened or open_verified(plan.checkpoint.path))
    lock = RunLock(plan.run.lock)
    store = CheckpointStore(plan.run, CheckpointNames.of(plan.options), lock)
    with refusing_odd(plan.checkpoint.path):
        story = story_in(payload, make_task(plan.options, torch.device("cpu")))
    try:
        with lock:
            prepare_folder(replace(plan, start=Start.RESUME), store, payload)
            found = survey_folder(plan.run.folder).checkpoints
            for warning in prune(left_to_prune(found, plan.checkpoint, plan.options), plan.checkpoint.path):
                say(f"[WARNING] {warning}.")
            wandb = _wandb_run(plan, WandbIdentity.in_payload(payload))
            reports = Reports(_reporters(plan, wandb), lambda: story)
            reports.tell(Moment.BEGUN)
            reports.end()
    except OSError as error:
        raise _cannot_write(plan, error) from error


def draw_heatmaps(plan: Plan) -> None:
    """Draw the attention of the plan's checkpoint, beside it, without training.

    Of a run's newest checkpoint that is what is due after the last epoch: a run that was killed while it drew that has
    all pictures in the end.
    """
    checkpoint = plan.checkpoint
    assert checkpoint is not None
    task, beside = _task_of(plan, Alone()), checkpoint.path.parent
    networks = trained_networks(plan, task)
    part = _open_corpus(plan.options, Alone()).dev
    newest = survey_folder(beside).latest
    folders: Sequence[Path] = [plan.run.attention_folder(checkpoint.epoch)]
    if newest is None or newest.position == checkpoint.position:
        folders = task.folders_to_draw(checkpoint.epoch, plan.run, is_last=True)
    for folder in (beside / folder.name for folder in folders):
        try:
            task.draw(networks, part, folder, NEVER)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror or error}): mend that and try again"
            ) from error


def _task_of(plan: Plan, ranks: Ranks) -> Task:
    """Return what the plan trains, on its device, which is told to give the same bits each time.

    All processes compute with as many threads: those of the checkpoint, or of the first.
    """
    device = choose_device(plan.options.device)
    refuse_differences(ranks, {"the type of device": device.type, "the version of torch": str(torch.__version__)})
    make_deterministic(ranks.broadcast(lambda: plan.checkpoint.num_threads if plan.checkpoint else own_threads()))
    return make_task(plan.options, device)


def _facts(plan: Plan, task: Task, built: Built, data: _Data) -> RunFacts:
    return RunFacts(
        options=plan.options,
        data=data.identity,
        builds=built.builds,
        environment=describe_environment(task.device),
        frozen=task.frozen(built.networks),
        reused=built.reused,
        recorded=task.recorded,
        place=place_of(plan.run.folder),
    )


@contextmanager
def _prepared(
    plan: Plan,
    store: CheckpointStore,
    lock: RunLock,
    payload: Mapping[str, Any] | None,
    history: History,
    *,
    names: TrainedNames | None,
    ranks: Ranks,
) -> Iterator[ExitStack]:
    """Hold the run folder's lock, the folder being as the plan wants it; yield what else is held as long.

    The first process does that for all. Raises UserError where the disk refuses before training has begun.
    """
    with ExitStack() as held:
        if not ranks.is_first:
            yield held
            return
        try:
            make_run_folder(plan)
            held.enter_context(lock)
            prepare_folder(plan, store, payload)
            del payload  # as large as the state, and not needed while training
            _write_beside_checkpoints(plan, history, names)
        except OSError as error:
            raise _cannot_write(plan, error) from error
        yield held


@contextmanager
def _mirrored(plan: Plan, ranks: Ranks) -> Iterator[Mirror | None]:
    """Yield the mirror that --mirror asks for, kept up to date beside training; on the way out it is waited for."""
    if not plan.options.mirror or not ranks.is_first:
        yield None
        return
    with Mirror(plan.run.folder, Path(plan.options.mirror), RetentionPolicy.of(plan.options)) as mirror:
        yield mirror
        if not mirror.finish(mirror.waits_s):
            say(
                f"[NOTE] The mirror {mirror.place} has not all of the run: the same command with --auto_resume goes on."
            )
        for line in mirror.news():
            say(line)


@contextmanager
def _told(
    plan: Plan,
    task: Task,
    state: TrainState,
    part: CorpusPart,
    ranks: Ranks,
    *,
    mirror: Mirror | None,
    times: SaveTimes,
) -> Iterator[Reports]:
    """Yield the run's reports, told now and once more on the way out, also after an error, which they then tell.

    Of several processes the first tells, and what it is called at W&B is part of the state of all.
    """
    if not ranks.is_first:
        state.wandb = ranks.broadcast(lambda: None)
        yield Reports([], lambda: story_of(state, task))
        return
    goes_on_elsewhere = plan.checkpoint is not None and is_copy(plan.checkpoint)
    wandb = _wandb_run(plan, state.wandb, goes_on_elsewhere=goes_on_elsewhere)
    if goes_on_elsewhere:
        state.wandb = None  # that run is the other folder's

    def story() -> Story:
        return replace(
            story_of(state, task),
            checkpoints=lambda: _model_files(plan),
            audio_examples=lambda: task.audio_examples(state.networks, part, reports.stop),
            asides=asides,
        )

    def asides() -> list[str]:
        return [text for text in (times.state(time.monotonic()), f"Mirror: {mirror.state}." if mirror else "") if text]

    mirroring = [MirrorReport(mirror)] if mirror else []
    reports = Reports([*_reporters(plan, wandb), *mirroring], story)
    reports.tell(Moment.BEGUN)
    if wandb and wandb.is_logging:
        state.wandb = wandb.identity
    if not plan.options.save_wandb_metadata:
        state.wandb = None
    ranks.broadcast(lambda: state.wandb)
    try:
        yield reports
    except BaseException as error:
        reports.interrupted = "stopped at once" if isinstance(error, KeyboardInterrupt) else str(error) or repr(error)
        raise
    finally:
        reports.end()


def _reporters(plan: Plan, wandb: WandbRun | None) -> list[Reporter]:
    own: list[Reporter] = [TensorBoardFile(plan.run), CsvTable(plan.run.training_log), RunPage(plan.run)]
    return [*own, wandb] if wandb else own


def _draw(plan: Plan, task: Task, state: TrainState, part: CorpusPart, *, is_last: bool, stop: StopRequest) -> None:
    """Draw what is due after an epoch; a disk that refuses a picture costs a warning, since it can be drawn later."""
    for folder in task.folders_to_draw(state.epoch, plan.run, is_last=is_last):
        try:
            task.draw(state.networks, part, folder, stop)
        except OSError as error:
            say(f"[WARNING] No attention heatmaps in {folder}: {error.strerror or error}")


def _wandb_run(plan: Plan, stored: WandbIdentity | None, *, goes_on_elsewhere: bool = False) -> WandbRun | None:
    if not plan.options.logs_to_wandb:
        return None
    refuse_missing_package()
    came_from = logs_folder_of(plan.checkpoint.path.parent) if plan.checkpoint else None
    return WandbRun(
        plan.run,
        plan.options,
        stored,
        came_from=came_from,
        left_later=bool(plan.move_aside),
        goes_on_elsewhere=goes_on_elsewhere,
    )


def _model_files(plan: Plan) -> list[Path]:
    """Return the best and the last checkpoint, and the frozen weights that they refer to."""
    found = [path for path in (plan.run.best_checkpoint, plan.run.last_checkpoint) if path.exists()]
    records = [record for record in map(examine, found) if isinstance(record, CheckpointRecord)]
    return [*found, *{find_frozen(record.path, record.frozen) for record in records if record.frozen}]


@contextmanager
def _saving(
    plan: Plan,
    store: CheckpointStore,
    state: TrainState,
    device: torch.device,
    names: TrainedNames | None,
    *,
    stop: StopRequest,
    ranks: Ranks,
) -> Iterator[tuple[Saver[Outcome], Committer]]:
    """Yield what saves the state, and what makes each save part of the run; of several processes the first saves.

    On the way out the save in flight ends first; a second Ctrl-C gives it up.
    """
    networks, optimizers = state.networks.values(), state.optimizers.values()
    committer = Committer(
        store,
        RetentionPolicy.of(plan.options),
        plan.options.compress_after,
        on_new_folder=lambda: _write_beside_checkpoints(plan, state.history, names),
    )
    saver: Saver[Outcome]
    if plan.options.sync_save or not ranks.is_first:
        saver = DirectSaver(committer.commit)
    else:
        pinned = device.type == "cuda"
        tensors = lambda: tensors_that_steps_change(networks, optimizers)  # noqa: E731
        saver = BackgroundSaver(committer.commit, tensors, pinned, stop)
    with fence_before_updates(saver.fence, optimizers):
        try:
            yield saver, committer
        except KeyboardInterrupt:
            saver.cancel()
            raise
        except BaseException:
            outcome = saver.close()
            if outcome and outcome.refused:
                say(f"[WARNING] {outcome.refused}.")
            raise
        saver.close()


def _save_times(plan: Plan, state: TrainState) -> SaveTimes:
    """Return what says when to save by time: as --max_lost has it, never where nothing asks for saves."""
    options = plan.options
    known = SaveCost.from_dict(plan.checkpoint.metadata.get(COST_KEY)) if plan.checkpoint else None
    tensors = tensors_that_steps_change(state.networks.values(), state.optimizers.values())
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    is_off = options.max_lost is None and not options.save_interval
    return SaveTimes(options.max_lost, size, known, is_off=is_off)


def _write_beside_checkpoints(plan: Plan, history: History, names: TrainedNames | None) -> None:
    assert plan.config is not None
    write_config(plan.run.config, plan.config, plan.options, history)
    if names:
        write_trained_names(plan.run.folder, names)


def _cannot_write(plan: Plan, error: OSError) -> UserError:
    where = error.filename or plan.run.folder
    return UserError(
        f"{where} cannot be written ({error.strerror or error}), and nothing was trained: "
        "mend that, or start the program in another folder"
    )


def _open_data(options: Options, task: Task, ranks: Ranks) -> _Data:
    corpus = _open_corpus(options, ranks)
    identity = corpus.identity | audio_identity((corpus.train, corpus.dev), options.seed)
    corpus = replace(corpus, train=task.heard(corpus.train), dev=task.heard(corpus.dev))
    train = corpus.train
    if options.num_examples:
        train = limit_examples(train, options.num_examples, options.seed)
    training, validation = task.batches(corpus, train)
    names = TrainedNames.of(trial.utterance for trial in train.protocol.trials)
    say(data_text(len(train), len(corpus.dev), corpus.folder, corpus.layout, corpus.division, notes=corpus.notes))
    return _Data(training, validation, corpus.dev, identity, names)


def _open_corpus(options: Options, ranks: Ranks) -> Corpus:
    """Find the corpus, every file of it, or make the demo corpus on its first use; the first process, then all."""
    found: list[Corpus] = []

    def find() -> None:
        if location := demo_to_make(options.database_path):
            say(f"Making the demo corpus in {location} (once, some seconds)")
        found.append(find_corpus(*corpus_place(options)))

    ranks.broadcast(find)
    if not found:
        find()
    return found[0]
