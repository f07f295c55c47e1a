"""From a TrainState to what is written: the payload for torch and the record for everybody else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoints.frozen_weights import FrozenWeights, without_frozen
from training.checkpoints.record import CheckpointRecord, Kind
from training.settings.options import Options
from training.state.train_state import TrainState


@dataclass(frozen=True)
class RunFacts:
    """What stays the same while a run trains, and belongs into each of its checkpoints.

    `data` names the protocols' contents by hash; `environment` says where and with what it ran; `frozen` are the
    weights that stay the same and are stored in a file of their own, None where all of them are trained.
    """

    options: Options
    data: Mapping[str, str]
    front_end_config: Mapping[str, Any]
    environment: Mapping[str, Any]
    frozen: FrozenWeights | None = None


def take_snapshot(state: TrainState, facts: RunFacts, kind: Kind) -> tuple[dict[str, Any], CheckpointRecord]:
    """Return the payload and the record of the state as it is now; the payload's tensors are the live ones."""
    settings = facts.options.as_dict()
    metadata = {
        **facts.environment,
        "saved_at": time.time(),
        "num_parameters": sum(p.numel() for network in state.networks.values() for p in network.parameters()),
        "training_seconds": state.training_seconds,
        **(state.wandb.as_dict() if state.wandb else {}),
    }
    record = CheckpointRecord(
        path=Path(),
        bytes_on_disk=0,
        kind=kind,
        lineage=state.lineage,
        epoch=state.epoch,
        step=state.step,
        batches_done=state.unfinished.batches_done,
        batches_per_epoch=state.unfinished.batches_per_epoch,
        learning_rate=state.learning_rate,
        last=state.history[-1] if state.history else None,
        best=state.best,
        options=facts.options,
        data=facts.data,
        metadata=metadata,
        validated=state.validated,
        decision=state.decision if state.decision and state.decision.step == state.step else None,
        frozen=facts.frozen.reference if facts.frozen else None,
    )
    payload = {
        **state.to_payload(),
        "args": settings,
        "config": settings,
        "data": dict(facts.data),
        "front_end_config": dict(facts.front_end_config),
        "metadata": metadata,
    }
    return without_frozen(payload, facts.frozen), record
