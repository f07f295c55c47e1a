"""The TrainState that a run starts with: new, from the weights of a file, or from a checkpoint."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoints.history import History, UnfinishedEpoch
from training.checkpoints.record import STATE_DICT
from training.checkpoints.verified_file import open_verified
from training.checkpoints.weights import Weights, load_into, load_weights
from training.loop.handing_out import handed_out, make_equal
from training.planning.learning_rate import planned_steps
from training.planning.plan import Plan
from training.saving.store import load_payload
from training.state.loss_scaler import LossScaler
from training.state.random_states import seed_random_states
from training.state.train_state import Observations, TrainState
from training.tasks.task import Built, Networks, Task
from utils.console import say
from utils.errors import UserError
from utils.memory_shortage import memory_shortage
from utils.ranks import Alone, Ranks
from utils.stored_values import OddValueError


@dataclass(frozen=True, eq=False)
class Start:
    """Networks on their device, and the payload of the checkpoint to go on from; None for a new run."""

    built: Built
    payload: Mapping[str, Any] | None


def build(plan: Plan, task: Task, ranks: Ranks) -> Start:
    """Return the networks to start with; of a checkpoint to continue they get their weights with the state.

    The first of several processes reads the file, once, and hands out what it holds; a new run has the first's weights.
    Raises UserError where weights cannot be had, are damaged, or do not fit.
    """
    seed_random_states(plan.options.seed)
    payload, weights = handed_out(ranks, lambda: _read(plan))
    built = task.build(payload if payload is not None else weights)
    if built.remark:
        say(built.remark)
    for network in built.networks.values():
        if payload is None:
            make_equal(ranks, network.state_dict().values())
        network.to(task.device)
    return Start(built, payload)


def _read(plan: Plan) -> tuple[Mapping[str, Any] | None, Weights | None]:
    """Return what the checkpoint holds that training goes on from, or the weights to begin with; None for none."""
    opened = plan.opened or (open_verified(plan.source.path) if plan.source else None)
    if opened is None:
        return None, None
    return (load_payload(opened), None) if plan.checkpoint else (None, load_weights(opened))


def starting_state(plan: Plan, task: Task, start: Start, batches_per_epoch: int, ranks: Ranks) -> TrainState:
    """Return the state to go on from; the networks must be on their device, since what optimizers hold follows them."""
    run_id = ranks.broadcast(lambda: secrets.token_hex(8))
    options, figures = plan.options, task.description.figures
    path = plan.source.path if plan.source else plan.run.folder
    with refusing_odd(path):
        past = History.in_payload(start.payload, figures) if start.payload else None
    total_steps = planned_steps(options.num_epochs, batches_per_epoch, past, batches_per_step=options.accumulate_steps)
    optimizers = task.optimizers(start.built.networks)
    state = TrainState(
        start.built.networks,
        optimizers,
        task.schedules(optimizers, total_steps),
        History(figures, UnfinishedEpoch(batches_per_epoch), ((run_id, 0),)),
        Observations(task.nothing_observed),
        dict.fromkeys(task.keeps),
        scaler=LossScaler(task.device, enabled=options.precision == "fp16"),
    )
    if start.payload is not None:
        with refusing_odd(path):
            state.restore(start.payload, path)
        task.history_restored(state)
        if plan.begins_branch:
            state.history.lineage += ((run_id, state.step),)
    return state


@contextmanager
def refusing_odd(path: Path) -> Iterator[None]:
    """Say of a checkpoint what no version stores: its seal holds, and so it was written like that."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if memory_shortage(error):
            raise
        reason = (
            " ".join(str(error).split()) if isinstance(error, OddValueError) else f"{type(error).__name__}: {error}"
        )
        raise UserError(
            f"{path} cannot be resumed: it is as it was written, and what it holds makes no sense ({reason}): go on "
            "from an earlier checkpoint by --resume --model_path FILE"
        ) from error


def trained_networks(plan: Plan, task: Task) -> Networks:
    """Return the networks of the plan's checkpoint with their weights, on their device, and nothing else of it."""
    assert plan.source is not None
    start = build(plan, task, Alone())
    assert start.payload is not None
    for name, network in start.built.networks.items():
        load_into(network, Weights(plan.source.path, start.payload[f"{name}{STATE_DICT}"], start.payload))
    return start.built.networks
