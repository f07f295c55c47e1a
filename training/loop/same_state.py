"""Sees to it that all processes of a run hold the same state, so that it does not matter which of them saves it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from training.state.train_state import TrainState
from utils.errors import UserError
from utils.ranks import Ranks


def require_same_state(state: TrainState, ranks: Ranks) -> None:
    """Raise UserError, in all processes, where networks or optimizers of one have other bits than those of the first.

    It reads each number once. Machines that compute differently show here, as does a detector that keeps something
    beside weights and batch norm that depends on which batches came by.
    """
    if ranks.count == 1:
        return
    sums = {name: _sum_of_bits(tensor) for name, tensor in _tensors(state)}
    found = ranks.gather({name: int(total) for name, total in sums.items()})
    for index, other in enumerate(found[1:], 1):
        differing = [name for name, total in found[0].items() if other.get(name) != total]
        if differing:
            raise UserError(
                f"process {index} does not hold the state of process 0 any more: {len(differing)} of {len(found[0])} "
                f"tensors differ, {differing[0]} for one. Nothing was saved over. See whether machines, GPUs and "
                "versions of torch are alike, and go on from the last checkpoint with processes that are, or with one"
            )


def _tensors(state: TrainState) -> Iterator[tuple[str, Tensor]]:
    for name, network in state.networks.items():
        for key, tensor in network.state_dict().items():
            yield f"{name}.{key}", tensor
    for name, optimizer in state.optimizers.items():
        for number, kept in optimizer.state_dict()["state"].items():
            yield from ((f"{name}.{number}.{key}", value) for key, value in kept.items() if isinstance(value, Tensor))
    yield from ((f"scaler.{key}", torch.tensor(value)) for key, value in state.scaler.state_dict().items())


def _sum_of_bits(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor's words as integers, on its device, modulo 2^64."""
    plain = tensor.detach().contiguous().flatten()
    word = torch.int32 if plain.element_size() % 4 == 0 else torch.uint8
    return plain.view(word).sum(dtype=torch.int64)
