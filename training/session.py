"""Carries out a plan: opens the data, builds the detector, prepares the run folder, trains, says how it ended."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from models.build import create_detector, rebuild_detector
from models.detector import Detector, DetectorSettings
from training.announcements import changes_text
from training.checkpoint_record import CheckpointRecord
from training.checkpoint_store import CheckpointStore, Weights, load_into, load_payload, load_weights
from training.data import Crop, TrainingBatches, ValidationBatches
from training.interruption import stop_on_signals
from training.logs import RunLogs
from training.loop import Trainer
from training.moving_aside import complete_interrupted_move, move_aside
from training.options import DEMO_DATABASE, Options
from training.plan import Plan, Start, refuse_changed_data
from training.run_lock import run_lock
from training.schedule import apply_given_rates, make_schedule, planned_steps
from training.snapshot import RunFacts, describe_environment
from training.state import TrainState, UnfinishedEpoch, seed_random_states
from training.survey import survey_folder
from training.task import DetectionTask
from utils.atomic_files import make_folder, remove_stray_temporaries
from utils.console import say
from utils.corpora import AsvspoofCorpus, CorpusPart, find_asvspoof_2019_la, limit_examples
from utils.demo_corpus import demo_corpus_folder
from utils.errors import UserError


@dataclass
class _Data:
    training: TrainingBatches
    validation: ValidationBatches
    validation_part: CorpusPart
    identity: dict[str, str]


def carry_out(plan: Plan) -> int:
    """Train as planned and return the exit code; nothing in the run folder changes before every check has passed."""
    options = plan.options
    device = choose_device(options.device)
    make_deterministic(plan.checkpoint)
    data = _open_data(options, device)
    if plan.checkpoint:
        changed = refuse_changed_data(plan.checkpoint, data.identity)
        if changed:
            say(changes_text(changed))
    detector, payload = _build_detector(plan)
    detector.to(device)
    state = _make_state(plan, detector, payload, data.training.num_batches_per_epoch)
    if plan.checkpoint:
        _say_if_bits_may_differ(plan.checkpoint.metadata, describe_environment(device))
    facts = RunFacts(options, data.identity, detector.front_end_config, describe_environment(device))
    store = CheckpointStore(plan.run)
    make_folder(plan.run.folder)
    with run_lock(plan.run.lock):
        _prepare_folder(plan, store)
        logs = RunLogs(plan.run, state)
        try:
            with stop_on_signals() as stop:
                say(_where_it_trains(detector, facts))
                trainer = Trainer(
                    state,
                    DetectionTask(options, device),
                    data.training,
                    data.validation,
                    store,
                    logs,
                    facts,
                    stop,
                    _heatmap_drawing(plan, detector, data.validation_part, device),
                )
                saved = trainer.train()
        finally:
            logs.close()
    if saved:
        say(_how_to_go_on(saved, stop.signal.name if stop.signal else "", state))
        return stop.exit_code
    say(_how_it_ended(plan, state))
    return 0


def choose_device(wanted: str) -> torch.device:
    """Return the device to train on; raises UserError where a GPU is asked for and none is there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda"):
        index = int(wanted.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise UserError(
                f"--device {wanted} is not there: torch sees {torch.cuda.device_count()} GPUs; pass --device cpu"
            )
    return torch.device(wanted)


def make_deterministic(checkpoint: CheckpointRecord | None) -> None:
    """Let torch use only operations that give the same bits each time, with as many threads as the run began with."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    if checkpoint:
        torch.set_num_threads(int(checkpoint.metadata["num_threads"]))


def _say_if_bits_may_differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changes = [(name, before[name], now[name]) for name in ("torch", "device")]
    differing = [f"{name}: {old} -> {new}" for name, old, new in changes if old != new]
    if differing:
        say(f"[NOTE] Not the machine or torch of before ({', '.join(differing)}): the last bits may differ.")


def _open_data(options: Options, device: torch.device) -> _Data:
    corpus = open_corpus(options)
    train = corpus.train
    identity = {"train": train.protocol.content_sha256, "dev": corpus.dev.protocol.content_sha256}
    if options.num_examples:
        train = limit_examples(train, options.num_examples, options.seed)
    pin = device.type == "cuda"
    training = TrainingBatches(
        train,
        batch_size=options.batch_size,
        seed=options.seed,
        crop=cast(Crop, options.crop),
        num_workers=options.num_workers,
        pin_memory=pin,
    )
    validation = ValidationBatches(
        corpus.dev, batch_size=options.batch_size, num_workers=options.num_workers, pin_memory=pin
    )
    say(f"Data: {len(train)} training and {len(corpus.dev)} validation utterances")
    return _Data(training, validation, corpus.dev, identity)


def open_corpus(options: Options) -> AsvspoofCorpus:
    """Find the corpus, every file of it, or make the demo corpus on its first use."""
    folder = demo_corpus_folder() if options.database_path == DEMO_DATABASE else Path(options.database_path)
    return find_asvspoof_2019_la(folder, Path(options.protocols_path) if options.protocols_path else None)


def detector_settings(options: Options) -> DetectorSettings:
    """Return the part of the options that shapes the detector."""
    return DetectorSettings(
        model_type=options.model_type,
        group_size=options.group_size,
        use_contrastive=options.use_contrastive,
        ssl_model=options.ssl_model,
        temporal_bias=options.temporal_bias,
        normalize_waveform=options.normalize_waveform,
    )


def _build_detector(plan: Plan) -> tuple[Detector, dict[str, Any] | None]:
    """Return the detector with the weights to start from, and the payload of the checkpoint to resume, if any."""
    settings = detector_settings(plan.options)
    seed_random_states(plan.options.seed)
    if plan.source is None:
        return create_detector(settings), None
    if plan.start is Start.RESUME:
        payload = load_payload(plan.source.path)
        detector = rebuild_detector(settings, payload["front_end_config"])
        load_into(detector, Weights(plan.source.path, payload["model_state_dict"], payload))
        return detector, payload
    weights = load_weights(plan.source.path)
    known_front_end = weights.payload.get("front_end_config")
    detector = rebuild_detector(settings, known_front_end) if known_front_end else create_detector(settings)
    load_into(detector, weights)
    return detector, None


def _make_state(plan: Plan, detector: Detector, payload: dict[str, Any] | None, batches_per_epoch: int) -> TrainState:
    options = plan.options
    optimizer = torch.optim.Adam(detector.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    schedule = make_schedule(optimizer, options, planned_steps(options.num_epochs, batches_per_epoch, payload))
    state = TrainState(
        {"model": detector},
        {"optimizer": optimizer},
        {"scheduler": schedule},
        UnfinishedEpoch(batches_per_epoch),
        ((secrets.token_hex(8), 0),),
    )
    if payload:
        state.restore(payload)
        apply_given_rates(optimizer, schedule, options)
    if payload and (plan.move_aside or plan.bring_along):
        state.lineage += ((secrets.token_hex(8), state.step),)
    return state


def _heatmap_drawing(
    plan: Plan, detector: Detector, part: CorpusPart, device: torch.device
) -> Callable[[TrainState], None]:
    """Return what is to be drawn after each epoch; matplotlib is imported only if something is."""
    if not plan.options.visualize_attention:
        return lambda _state: None
    from training.heatmaps import HeatmapWriter  # noqa: PLC0415

    return HeatmapWriter(plan.options, plan.run, detector, part, device).after_epoch


def _prepare_folder(plan: Plan, store: CheckpointStore) -> None:
    """Bring the locked run folder into the shape that the plan says; each part may be cut off and repeated."""
    complete_interrupted_move(plan.run)
    for name in remove_stray_temporaries(plan.run.folder):
        say(f"Removed {plan.run.folder / name}, left by a process that was killed while it wrote.")
    found = survey_folder(plan.run.folder)
    if set(found.entries) != set(plan.seen):
        raise UserError(f"{plan.run.folder} was changed by another process since this one looked: start again")
    if plan.move_aside:
        move_aside(plan.run, plan.move_aside, found.next_version)
    if plan.checkpoint is None:
        return
    folders = [plan.checkpoint.path.parent, plan.run.folder]
    if plan.bring_along:
        store.bring_along(plan.checkpoint)
    if found.next_version > 1:
        folders += [plan.run.version_folder(found.next_version), plan.run.version_folder(found.next_version - 1)]
    missing = store.restore_best(plan.checkpoint, folders)
    if missing:
        say(f"[NOTE] {missing}")


def _where_it_trains(detector: Detector, facts: RunFacts) -> str:
    size = sum(parameter.numel() for parameter in detector.parameters()) / 1e6
    machine = f"{facts.environment['device']}, {facts.environment['num_threads']} threads, {facts.options.precision}"
    return f"Training {facts.options.model_type} ({facts.options.ssl_model}, {size:.1f} M parameters) on {machine}"


def _how_to_go_on(saved: Path, signal_name: str, state: TrainState) -> str:
    if not (state.epoch or state.unfinished.batches_done):
        return f"Stopped by {signal_name} before the first step: nothing to save."
    where = f"epoch {state.epoch + 1}, step {state.step}" if state.unfinished.batches_done else f"epoch {state.epoch}"
    return (
        f"Stopped by {signal_name} at {where}; saved {saved}\n"
        f"To go on: the same command with --auto_resume, or --resume --model_path {saved}"
    )


def _how_it_ended(plan: Plan, state: TrainState) -> str:
    best = state.best
    assert best is not None
    return (
        f"Done: {state.epoch} epochs in {state.training_seconds:.0f} s of training. Best: epoch {best.epoch} with "
        f"val EER {best.val_eer:.2f}%, in {plan.run.best_checkpoint}"
    )
