"""Carries out a plan: opens the data, builds the detector, prepares the run folder, trains, says how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from models.detector import Detector
from training.checkpoints.frozen_reference import find_frozen
from training.checkpoints.frozen_weights import frozen_weights
from training.checkpoints.record import CheckpointRecord, examine
from training.checkpoints.verified_file import open_verified
from training.data.augmentation import rawboost_of
from training.data.batches import Crop, TrainingBatches, ValidationBatches
from training.loop.preparation import make_run_folder, prepare_folder
from training.loop.starting_state import build_detector, starting_state
from training.loop.trainer import Trainer
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
from training.planning.refusals import refuse_changed_data
from training.planning.sessions import begin_session
from training.reports.curves import Curves
from training.reports.page.story import story_in
from training.reports.page.writing import RunPage, after_each_epoch, run_page
from training.reports.run_logs import RunLogs
from training.reports.wandb_run import WandbRun
from training.runs.config_file import write_config
from training.runs.directory import logs_folder_of
from training.runs.lock import RunLock
from training.runs.names import CheckpointNames
from training.runs.retention import RetentionPolicy
from training.saving.background_saving import (
    BackgroundSaver,
    DirectSaver,
    Saver,
    fence_before_updates,
    tensors_that_steps_change,
)
from training.saving.commit import Committer, Outcome
from training.saving.store import CheckpointStore, load_payload
from training.settings.options import DEMO_DATABASE, Options
from training.settings.wandb import WandbIdentity, refuse_missing_package
from training.state.snapshot import RunFacts
from training.state.train_state import TrainState
from training.tasks.audio_examples import audio_examples
from training.tasks.detection import DetectionTask
from utils.console import say
from utils.corpora import Corpus, CorpusPart, find_corpus, limit_examples
from utils.corpora.demo_corpus import demo_corpus_folder, demo_corpus_location
from utils.errors import EXIT_FAILURE, UserError
from utils.interruption import stop_on_signals
from utils.machine import (
    choose_device,
    describe_environment,
    differences_that_may_change_bits,
    make_deterministic,
)


@dataclass(frozen=True)
class _Data:
    training: TrainingBatches
    validation: ValidationBatches
    validation_part: CorpusPart
    identity: dict[str, str]


def carry_out(plan: Plan) -> int:
    """Train as planned and return the exit code; nothing in the run folder changes before every check has passed."""
    options = plan.options
    if options.logs_to_wandb:
        refuse_missing_package()
    device = choose_device(options.device)
    make_deterministic(plan.checkpoint.num_threads if plan.checkpoint else None)
    data = _open_data(options, device)
    changed = refuse_changed_data(plan.checkpoint, data.identity) if plan.checkpoint else ()
    if changed:
        say(changes_text(changed))
    detector, payload = build_detector(plan)
    state = starting_state(plan, detector.to(device), payload, data.training.num_batches_per_epoch)
    frozen = frozen_weights(detector)
    facts = RunFacts(options, data.identity, detector.front_end_config, describe_environment(device), frozen)
    if plan.checkpoint:
        differing = differences_that_may_change_bits(plan.checkpoint.metadata, facts.environment)
        if differing:
            say(f"[NOTE] Not the machine or torch of before ({', '.join(differing)}): the last bits may differ.")
    weights = plan.source.path if plan.source else None
    state.sessions.append(begin_session(plan.checkpoint, options, facts.environment, changed, weights))
    lock = RunLock(plan.run.lock)
    store = CheckpointStore(plan.run, CheckpointNames.of(options), lock, frozen)
    with (
        _prepared(plan, store, lock, state, payload) as logs,
        run_page(plan.run, options, state) as page,
        stop_on_signals() as stop,
        _saving(plan, store, state, device) as saver,
    ):
        trainer = Trainer(
            state=state,
            task=DetectionTask(options, device),
            training=data.training,
            validation=data.validation,
            saver=saver,
            logs=logs,
            facts=facts,
            stop=stop,
            last_saved=plan.checkpoint.path if plan.checkpoint else None,
            after_epoch=after_each_epoch(page, _heatmap_drawing(plan, detector, data.validation_part, device)),
        )
        say(training_text(options, sum(p.numel() for p in detector.parameters()), facts.environment))
        trainer.train()
        if stop.signal is not None and not trainer.is_done:
            page.stopped_by = f"by {stop.signal.name}"
        if trainer.is_done and not trainer.not_saved:
            logs.training_completed(
                lambda: _model_files(plan), lambda: audio_examples(detector, data.validation_part, device)
            )
    if trainer.not_saved:
        raise UserError(unsaved_text(trainer.not_saved, trainer.last_saved), stop.exit_code or EXIT_FAILURE)
    if not trainer.is_done:
        assert stop.signal is not None
        say(stopped_text(stop.signal.name, state.epoch, state.unfinished.batches_done, trainer.last_saved))
        return stop.exit_code
    assert state.best is not None
    if state.epoch < options.num_epochs:
        say(stalled_text(state.epoch, state.best, options.patience))
    say(ended_text(state.epoch, state.training_seconds, state.best, plan.run.best_checkpoint))
    return 0


def finish(plan: Plan) -> None:
    """Do what a killed process left undone in the folder of a run that has reached its target, and train nothing."""
    assert plan.checkpoint is not None
    payload = load_payload(plan.opened or open_verified(plan.checkpoint.path))
    lock = RunLock(plan.run.lock)
    store = CheckpointStore(plan.run, CheckpointNames.of(plan.options), lock)
    try:
        with lock:
            prepare_folder(replace(plan, start=Start.RESUME), store, payload)
            wandb = _wandb_run(plan, WandbIdentity.in_payload(payload))
            RunLogs(plan.run, Curves.in_payload(payload), wandb).close()
            RunPage(plan.run, plan.options).write(story_in(payload, plan.options))
    except OSError as error:
        raise _cannot_write(plan, error) from error


def draw_heatmaps(plan: Plan) -> None:
    """Draw the attention of the plan's checkpoint, beside it, without training."""
    from training.tasks.heatmaps import HeatmapWriter  # noqa: PLC0415  (matplotlib)

    assert plan.checkpoint is not None
    device = choose_device(plan.options.device)
    make_deterministic(plan.checkpoint.num_threads)
    detector, _ = build_detector(plan)
    validation_part = _open_corpus(plan.options).dev
    folder = plan.checkpoint.path.parent / plan.run.attention_folder(plan.checkpoint.epoch).name
    try:
        HeatmapWriter(plan.options, plan.run, detector.to(device), validation_part, device).draw(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}): mend that and try again") from error


@contextmanager
def _prepared(
    plan: Plan, store: CheckpointStore, lock: RunLock, state: TrainState, payload: dict[str, Any] | None
) -> Iterator[RunLogs]:
    """Hold the run folder's lock, the folder being as the plan wants it, and yield the run's logs.

    Raises UserError where the disk refuses before training has begun.
    """
    with ExitStack() as held:
        try:
            make_run_folder(plan)
            held.enter_context(lock)
            prepare_folder(plan, store, payload)
            _write_config(plan)
            wandb = _wandb_run(plan, state.wandb)
            logs = RunLogs(plan.run, Curves.of(state), wandb)
        except OSError as error:
            raise _cannot_write(plan, error) from error
        held.callback(logs.close)
        if wandb and wandb.is_logging:
            state.wandb = wandb.identity
        if not plan.options.save_wandb_metadata:
            state.wandb = None
        yield logs


def _wandb_run(plan: Plan, stored: WandbIdentity | None) -> WandbRun | None:
    if not plan.options.logs_to_wandb:
        return None
    refuse_missing_package()
    came_from = logs_folder_of(plan.checkpoint.path.parent) if plan.checkpoint else None
    return WandbRun(plan.run, plan.options, stored, came_from=came_from, left_later=bool(plan.move_aside))


def _model_files(plan: Plan) -> list[Path]:
    """Return the best and the last checkpoint, and the frozen weights that they refer to."""
    found = [path for path in (plan.run.best_checkpoint, plan.run.last_checkpoint) if path.exists()]
    records = [record for record in map(examine, found) if isinstance(record, CheckpointRecord)]
    return [*found, *{find_frozen(record.path, record.frozen) for record in records if record.frozen}]


@contextmanager
def _saving(plan: Plan, store: CheckpointStore, state: TrainState, device: torch.device) -> Iterator[Saver[Outcome]]:
    """Yield what saves the state. On the way out the save in flight ends first; a second Ctrl-C gives it up."""
    networks, optimizers = state.networks.values(), state.optimizers.values()
    source = plan.checkpoint.path if plan.checkpoint else None
    committer = Committer(
        store,
        RetentionPolicy.of(plan.options),
        source,
        plan.options.compress_after,
        on_new_folder=lambda: _write_config(plan),
    )
    saver: Saver[Outcome]
    if plan.options.sync_save:
        saver = DirectSaver(committer.commit)
    else:
        pinned = device.type == "cuda"
        saver = BackgroundSaver(committer.commit, lambda: tensors_that_steps_change(networks, optimizers), pinned)
    with fence_before_updates(saver.fence, optimizers):
        try:
            yield saver
        except KeyboardInterrupt:
            saver.cancel()
            raise
        except BaseException:
            outcome = saver.close()
            if outcome and outcome.refused:
                say(f"[WARNING] {outcome.refused}.")
            raise
        saver.close()


def _write_config(plan: Plan) -> None:
    assert plan.config is not None
    write_config(plan.run.config, plan.config, plan.options)


def _cannot_write(plan: Plan, error: OSError) -> UserError:
    where = error.filename or plan.run.folder
    return UserError(
        f"{where} cannot be written ({error.strerror or error}), and nothing was trained: "
        "mend that, or start the program in another folder"
    )


def _open_data(options: Options, device: torch.device) -> _Data:
    corpus = _open_corpus(options)
    train = corpus.train
    identity = {"train": train.protocol.content_sha256, "dev": corpus.dev.protocol.content_sha256}
    if options.num_examples:
        train = limit_examples(train, options.num_examples, options.seed)
    pin = device.type == "cuda"
    training = TrainingBatches(
        train,
        batch_size=options.batch_size,
        seed=options.seed,
        balanced=options.balanced_batches,
        crop=cast(Crop, options.crop),
        augmentation=rawboost_of(options),
        num_workers=options.num_workers,
        pin_memory=pin,
    )
    validation = ValidationBatches(
        corpus.dev, batch_size=options.batch_size, num_workers=options.num_workers, pin_memory=pin
    )
    say(data_text(len(train), len(corpus.dev), corpus.folder, corpus.layout, corpus.division))
    return _Data(training, validation, corpus.dev, identity)


def _open_corpus(options: Options) -> Corpus:
    """Find the corpus, every file of it, or make the demo corpus on its first use."""
    folder = Path(options.database_path)
    if options.database_path == DEMO_DATABASE:
        if not demo_corpus_location().exists():
            say(f"Making the demo corpus in {demo_corpus_location()} (once, some seconds)")
        folder = demo_corpus_folder()
    return find_corpus(folder, Path(options.protocols_path) if options.protocols_path else None)


def _heatmap_drawing(
    plan: Plan, detector: Detector, part: CorpusPart, device: torch.device
) -> Callable[[TrainState], None]:
    """Return what is to be drawn after each epoch; matplotlib is imported only if something is."""
    if not plan.options.visualize_attention:
        return lambda _state: None
    from training.tasks.heatmaps import HeatmapWriter  # noqa: PLC0415

    return HeatmapWriter(plan.options, plan.run, detector, part, device).after_epoch
