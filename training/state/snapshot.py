"""From a TrainState to what is written: the payload for torch and the record for everybody else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoints.frozen_weights import FrozenWeights, without_frozen
from training.checkpoints.record import STATE_DICT, CheckpointRecord, Kind
from training.settings.options import Options
from training.state.train_state import TrainState
from utils.numerics import NUMERICS


@dataclass(frozen=True)
class RunFacts:
    """What stays the same while a run trains, and belongs into each of its checkpoints.

    `data` names the protocols' contents by hash; `environment` says where and with what it ran; `frozen` are the
    weights that stay the same and are stored in a file of their own, None where all of them are trained. `builds` are
    plain values from which the task builds its networks again, by the keys of the payload, and `reused` the networks
    whose weights a file of weights for reuse has. `recorded` is what of the task's kept values is in the record, too.
    `place` is where the run folder is, see `place_of`.
    """

    options: Options
    data: Mapping[str, str]
    builds: Mapping[str, Any]
    environment: Mapping[str, Any]
    frozen: FrozenWeights | None = None
    reused: tuple[str, ...] = ("model",)
    recorded: tuple[str, ...] = ()
    place: str = ""


def take_snapshot(
    state: TrainState, facts: RunFacts, kind: Kind, saving: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], CheckpointRecord]:
    """Return the payload and the record of the state as it is now; the payload's tensors are the live ones.

    `saving` is what its metadata say of the save itself. It takes as long whatever the run's past: the lists of that
    are `Appended`, and the store writes them out.
    """
    settings, history = facts.options.as_dict(), state.history
    metadata = {
        **facts.environment,
        "saved_at": time.time(),
        "run_folder": facts.place,
        "num_parameters": state.num_parameters,
        "training_seconds": state.history.training_seconds,
        **(state.wandb.as_dict() if state.wandb else {}),
        **(saving or {}),
    }
    record = CheckpointRecord(
        path=Path(),
        bytes_on_disk=0,
        kind=kind,
        lineage=history.lineage,
        epoch=history.epoch,
        step=history.step,
        batches_done=history.under_way.batches_done,
        batches_per_epoch=history.under_way.batches_per_epoch,
        learning_rate=state.learning_rate,
        last=history.last,
        best=history.best,
        options=facts.options,
        data=facts.data,
        metadata=metadata,
        validated=history.validated,
        frozen=facts.frozen.reference if facts.frozen else None,
        task=facts.options.task.name,
        figures=history.figures,
        parts=(*state.parts, *facts.builds),
        weights=(*(f"{name}{STATE_DICT}" for name in facts.reused), *facts.builds),
        kept={name: _of_step(state.kept.get(name), state.step) for name in facts.recorded},
    )
    payload = {
        **state.taken(),
        "args": settings,
        "config": settings,
        "data": dict(facts.data),
        **facts.builds,
        "numerics": NUMERICS,
        "metadata": metadata,
    }
    return without_frozen(payload, facts.frozen), record


def _of_step(kept: Mapping[str, Any] | None, step: int) -> Mapping[str, Any] | None:
    """Return what a task keeps, None where it is of other weights than those after `step` steps."""
    return kept if kept and kept.get("step") == step else None
