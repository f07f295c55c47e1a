"""All that must survive a restart, as one TrainState, and its way into and out of a checkpoint's payload.

The position to go on from is read from the state and never passed around. A payload is what torch.save writes: tensors
and plain Python values only, so that `torch.load(weights_only=True)` opens it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from models.running_statistics import normalises_by_batch
from training.checkpoints.appended import written_out
from training.checkpoints.history import History
from training.checkpoints.record import STATE_DICT
from training.checkpoints.weights import Weights, load_into
from training.settings.wandb import WandbIdentity
from training.state.loss_scaler import LossScaler
from training.state.random_states import random_states, restore_random_states

SCALER = "scaler"
"""The name of the loss scaler among the parts."""
Observed = dict[str, Tensor]
"""What batches gave, by name: values (utterances, ...) that are joined batch after batch, on the CPU."""


class Observations:
    """What the steps of the epoch under way gave so far; `nothing` is what there is before the first of them.

    >>> seen = Observations({"scores": torch.empty(0)})
    >>> seen.add({"scores": torch.tensor([1.0, 2.0])})
    >>> seen.add({"scores": torch.tensor([3.0])})
    >>> seen.joined()
    {'scores': tensor([1., 2., 3.])}
    """

    def __init__(self, nothing: Mapping[str, Tensor]) -> None:
        self._nothing = dict(nothing)
        self._parts: dict[str, list[Tensor]] = {name: [] for name in nothing}

    def add(self, observed: Mapping[str, Tensor]) -> None:
        """Take in what one step gave; raises KeyError for a name that is not known."""
        for name, values in observed.items():
            self._parts[name].append(values)

    def joined(self) -> Observed:
        """Return all of it, in the order of training."""
        return {name: torch.cat(parts) if parts else self._nothing[name] for name, parts in self._parts.items()}

    def clear(self) -> None:
        """Forget what the epoch gave, since the next one begins."""
        self._parts = {name: [] for name in self._parts}

    @property
    def names(self) -> Iterable[str]:
        """What is observed."""
        return self._parts


@dataclass
class TrainState:
    """Networks, optimizers and schedulers by name, and the history.

    Everything named here is saved as `<name>_state_dict` in one file, so parts that belong together (a generator and
    its discriminators, say) cannot be saved apart; two parts of one name are refused. `observed` is what the steps of
    the epoch under way gave, `kept` what the task keeps of the last validation (scores and threshold, say), by the keys
    of the payload. `scaler` is a part where it is enabled, which --precision fp16 does. But for times and sessions all
    of it has the same bits however often the run was stopped.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    schedulers: dict[str, LRScheduler]
    history: History
    observed: Observations = field(default_factory=lambda: Observations({}))
    kept: dict[str, Any] = field(default_factory=dict)
    wandb: WandbIdentity | None = None
    scaler: LossScaler = field(default_factory=LossScaler)

    def __post_init__(self) -> None:
        names = [*self.networks, *self.optimizers, *self.schedulers, SCALER]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"parts of a state share the name {', '.join(twice)}, and only one of them would be saved: give each "
                "network, optimizer and scheduler a name of its own"
            )

    @property
    def epoch(self) -> int:
        """How many epochs are completed."""
        return self.history.epoch

    @property
    def step(self) -> int:
        """How many steps were made since the run began."""
        return self.history.step

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step, of the first optimizer."""
        optimizer = next(iter(self.optimizers.values()))
        return float(optimizer.param_groups[0]["lr"])

    @property
    def normalises_by_batch(self) -> bool:
        """Whether in training what is said of one utterance depends on the others in its batch."""
        return any(map(normalises_by_batch, self.networks.values()))

    @property
    def num_parameters(self) -> int:
        """The parameters of all networks."""
        return sum(parameter.numel() for network in self.networks.values() for parameter in network.parameters())

    @property
    def parts(self) -> dict[str, nn.Module | Optimizer | LRScheduler | LossScaler]:
        """Every part by its key in a payload."""
        named: dict[str, nn.Module | Optimizer | LRScheduler | LossScaler] = {}
        for parts in (self.networks, self.optimizers, self.schedulers):
            named.update(parts)
        if self.scaler.is_enabled():
            named[SCALER] = self.scaler
        return {f"{name}{STATE_DICT}": part for name, part in named.items()}

    def to_payload(self) -> dict[str, Any]:
        """Return everything as tensors and plain values; the tensors are the live ones, not copies."""
        return written_out(self.taken())

    def taken(self) -> dict[str, Any]:
        """Return the payload as a save takes it: in it the lists of the past are `Appended`."""
        return {
            **self.history.taken(),
            **{key: part.state_dict() for key, part in self.parts.items()},
            **self.kept,
            "unfinished_epoch": {**asdict(self.history.under_way), **self.observed.joined()},
            "random_states": random_states(),
            **(self.wandb.as_dict() if self.wandb else {}),
        }

    def restore(self, payload: Mapping[str, Any], path: Path) -> None:
        """Take over everything from a payload, strictly: a missing or foreign key raises KeyError or RuntimeError.

        The weights go into the networks here, and nowhere else; UserError says which of them do not fit, and that the
        payload is of the file `path`. An epoch that was not begun keeps the length that it has here, since it may have
        other data than the one before.
        """
        for name, network in self.networks.items():
            load_into(network, Weights(path, payload[f"{name}{STATE_DICT}"], payload))
        for name, part in (self.optimizers | self.schedulers).items():
            part.load_state_dict(payload[f"{name}{STATE_DICT}"])
        scaled = payload.get(f"{SCALER}{STATE_DICT}")  # a run whose --precision was another begins with a new scale
        if scaled is not None:
            self.scaler.load_state_dict(scaled)
        ahead = self.history.under_way
        self.history = History.in_payload(payload, self.history.figures)
        if self.history.under_way.batches_done:
            self.observed.clear()
            self.observed.add({name: payload["unfinished_epoch"][name] for name in self.observed.names})
        else:
            self.history.under_way = ahead
        self.kept = {name: payload.get(name) for name in self.kept}  # not all of it is in files of earlier versions
        self.wandb = WandbIdentity.in_payload(payload)
        restore_random_states(payload["random_states"])
