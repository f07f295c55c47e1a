"""The detector and the TrainState a run starts with: new, from the weights of a file, or from a checkpoint."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import torch

from models.build import create_detector, rebuild_detector
from models.detector import Detector, DetectorSettings
from training.checkpoints.foreign_weights import adapted_from_photographs, renamed_from_fairseq
from training.checkpoints.store import load_payload
from training.checkpoints.weights import Weights, load_into, load_weights, taken_text
from training.options import Options
from training.plan import Plan
from training.recipe_settings import ONE_CLASS_LOSS
from training.schedule import apply_rates, make_schedule, planned_steps
from training.state import TrainState, UnfinishedEpoch, seed_random_states
from utils.console import say


def detector_settings(options: Options) -> DetectorSettings:
    """Return the part of the options that shapes the detector."""
    return DetectorSettings(
        model_type=options.model_type,
        group_size=options.group_size,
        use_contrastive=options.use_contrastive,
        ssl_model=options.ssl_model,
        temporal_bias=options.temporal_bias,
        normalize_waveform=options.normalize_waveform,
        freeze_ssl=options.freeze_ssl,
        one_class=options.loss == ONE_CLASS_LOSS,
    )


def build_detector(plan: Plan) -> tuple[Detector, dict[str, Any] | None]:
    """Return the detector on the CPU with the weights to start from, and the payload of the checkpoint to continue.

    Raises UserError where weights cannot be had, are damaged, or do not fit.
    """
    settings = detector_settings(plan.options)
    seed_random_states(plan.options.seed)
    if plan.source is None:
        return create_detector(settings), None
    if plan.checkpoint:
        payload = load_payload(plan.source.path)
        detector = rebuild_detector(settings, payload["front_end_config"])
        load_into(detector, Weights(plan.source.path, payload["model_state_dict"], payload))
        return detector, payload
    weights = load_weights(plan.source.path)
    detector = empty_detector(settings, weights)
    weights = adapted_from_photographs(renamed_from_fairseq(weights, detector), detector)
    say(taken_text(weights, load_into(detector, weights)))
    return detector, None


def empty_detector(settings: DetectorSettings, weights: Weights) -> Detector:
    """Return a detector to fill; pretrained files are needed only where the weights' file does not say its shape."""
    stored = weights.payload.get("args")
    trained_with = stored.get("ssl_model") if isinstance(stored, Mapping) else None
    if trained_with == settings.ssl_model and "front_end_config" in weights.payload:
        return rebuild_detector(settings, weights.payload["front_end_config"])
    return create_detector(settings)


def starting_state(
    plan: Plan, detector: Detector, payload: dict[str, Any] | None, batches_per_epoch: int
) -> TrainState:
    """Return the state to go on from; the detector must be on its device already, since Adam's moments follow it."""
    options = plan.options
    optimizer = torch.optim.Adam(detector.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    total_steps = planned_steps(
        options.num_epochs, batches_per_epoch, payload, batches_per_step=options.accumulate_steps
    )
    schedule = make_schedule(optimizer, options, total_steps)
    state = TrainState(
        {"model": detector},
        {"optimizer": optimizer},
        {"scheduler": schedule},
        UnfinishedEpoch(batches_per_epoch),
        ((secrets.token_hex(8), 0),),
    )
    if payload:
        state.restore(payload)
        apply_rates(optimizer, schedule, options, state.history)
    if payload and (plan.move_aside or plan.bring_along):
        state.lineage += ((secrets.token_hex(8), state.step),)
    return state
