"""The detector and the TrainState a run starts with: new, from the weights of a file, or from a checkpoint."""

from __future__ import annotations

import secrets
from typing import Any

import torch

from models.build import create_detector, rebuild_detector
from models.detector import Detector
from training.checkpoints.foreign_weights import adapted_from_photographs, renamed_from_fairseq
from training.checkpoints.verified_file import open_verified
from training.checkpoints.weights import Weights, load_into, load_weights, taken_text
from training.planning.plan import Plan
from training.saving.store import load_payload
from training.state.random_states import seed_random_states
from training.state.train_state import TrainState, UnfinishedEpoch
from training.tasks.detectors import detector_settings, empty_detector
from training.tasks.schedule import apply_rates, make_schedule, planned_steps
from utils.console import say


def build_detector(plan: Plan) -> tuple[Detector, dict[str, Any] | None]:
    """Return the detector on the CPU with the weights to start from, and the payload of the checkpoint to continue.

    Raises UserError where weights cannot be had, are damaged, or do not fit.
    """
    settings = detector_settings(plan.options)
    seed_random_states(plan.options.seed)
    if plan.source is None:
        return create_detector(settings), None
    opened = plan.opened or open_verified(plan.source.path)
    if plan.checkpoint:
        payload = load_payload(opened)
        detector = rebuild_detector(settings, payload["front_end_config"])
        load_into(detector, Weights(plan.source.path, payload["model_state_dict"], payload))
        return detector, payload
    weights = load_weights(opened)
    detector = empty_detector(settings, weights)
    weights = adapted_from_photographs(renamed_from_fairseq(weights, detector), detector)
    say(taken_text(weights, load_into(detector, weights)))
    return detector, None


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
