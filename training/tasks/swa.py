"""The mean of the weights of the epochs whose validation EER no earlier epoch went below: SWA as AASIST does it.

An epoch joins at its end, before its checkpoint is written, so the mean is a part of every checkpoint and follows
from the history: a stop changes none of its bits. Source: clovaai/aasist main.py, which calls `update_swa` where
`best_dev_eer >= dev_eer`, `best_dev_eer` being 1 at first; torchcontrib's SWA has the running mean.

Statistics of batch norm do not follow from a mean of weights. At the end of training they are computed anew, as AASIST
does before its last evaluation (`optimizer_swa.bn_update(trn_loader, model)`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from models.running_statistics import OfBatch, SetAsideStatistics, Statistics
from training.checkpoints.history import History
from training.checkpoints.verified_file import VerifiedFile
from training.checkpoints.weights import Weights, load_weights
from training.data.loading import Batch
from utils.errors import UserError
from utils.seeding import derive_seed

SWA = "swa"
"""The key of the payload: `epochs`, those in the mean, and `weights`, the mean of each tensor that training changes.

At the end of training `statistics` are beside them: the running statistics of batch norms that the mean itself has.
"""
STATISTICS = "statistics"


def joins(history: History, below: float) -> bool:
    """Whether the epoch that was completed last is one of the mean: no earlier one was better, nor is it above `below`.

    By the figure that decides, in percent, alone: of equal ones each joins.
    """
    name = history.figures.first.name
    *earlier, last = [row[name] for row in history.epochs]
    return last <= min([below, *earlier])


def with_epoch(mean: Mapping[str, Any] | None, network: nn.Module, epoch: int) -> dict[str, Any]:
    """Return the mean with one more epoch in it, in new tensors on the CPU; `mean` is None before the first.

    Running statistics of batch norms are averaged as weights are, until `StatisticsAnew` has those of the mean. What is
    frozen is left out: it is its own mean.
    """
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    now = {
        name: tensor.detach().cpu()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point() and name not in frozen
    }
    if mean is None:
        return {"epochs": [epoch], "weights": {name: tensor.clone() for name, tensor in now.items()}}
    epochs = [*mean["epochs"], epoch]
    weights = {name: old + (now[name] - old) / len(epochs) for name, old in mean["weights"].items()}
    return {"epochs": epochs, "weights": weights}


def without_statistics(mean: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a mean as it was before the end of a training that goes on after all; None for None."""
    return None if mean is None else {name: part for name, part in mean.items() if name != STATISTICS}


def has_batch_norm(network: nn.Module) -> bool:
    """Whether there are running statistics to compute anew."""
    return any(True for _ in _norms(network))


class StatisticsAnew:
    """The pass that gives a mean its batch-norm statistics, the average over the utterances of the training part.

    In training mode and fp32, without gradients. torchcontrib's `bn_update` has the formula: each batch of b utterances
    after n moves the statistics by b / (n + b), so that batches of one size count alike. Dropout draws by `position`
    and the batch's number. The network is a copy: a save in the background may be writing the one that was trained.
    """

    label = "--swa: batch norm of the mean"

    def __init__(self, network: nn.Module, mean: Mapping[str, Any], position: tuple[int, ...]) -> None:
        self._mean, self._position = dict(mean), position
        self._network = copy.deepcopy(network).train()
        self._network.zero_grad(set_to_none=True)
        self._network.load_state_dict({**network.state_dict(), **mean["weights"]})
        for _, norm in _norms(self._network):
            norm.reset_running_stats()
        self._statistics = Statistics([self._network])
        self._utterances = 0

    def take(self, batch: Batch, number: int) -> tuple[int, OfBatch]:
        """Return how many utterances a batch has, and its statistics; the global random state stays as it is."""
        device = batch.waveforms.device
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(cuda), torch.no_grad(), self._statistics.set_aside():
            torch.manual_seed(derive_seed("swa", *self._position, number))
            self._network(batch.waveforms)
            found = self._statistics.taken()
        return len(batch), replace(found, numbers=found.numbers.cpu())

    def add(self, part: tuple[int, OfBatch]) -> None:
        """Move the statistics by those of one batch, in the order of an epoch of training."""
        utterances, found = part
        self._utterances += utterances
        for _, norm in _norms(self._network):
            norm.momentum = utterances / self._utterances
        self._statistics.move(found)

    def kept(self) -> dict[str, Any]:
        """Return the mean with the statistics of its norms, in new tensors on the CPU."""
        statistics = {
            f"{place}.{name}": tensor.detach().cpu()
            for place, norm in _norms(self._network)
            for name, tensor in norm.named_buffers()
            if tensor.is_floating_point()
        }
        return {SWA: {**self._mean, STATISTICS: statistics}}


def _norms(network: nn.Module) -> Iterator[tuple[str, SetAsideStatistics]]:
    for place, module in network.named_modules():
        if isinstance(module, SetAsideStatistics) and module.track_running_stats:
            yield place, module


@dataclass(frozen=True, eq=False)
class Mean:
    """The weights of a mean, which epochs are in it, and whether its batch-norm statistics are its own.

    They are where training has come to its end, by this version; else they are the mean of those of the epochs.
    """

    weights: Weights
    epochs: tuple[int, ...]
    has_own_statistics: bool


def load_mean(opened: VerifiedFile) -> Mean:
    """Return what a checkpoint holds with the mean in place of the weights of its epoch."""
    weights = load_weights(opened)
    mean = weights.payload.get(SWA)
    if not mean:
        raise UserError(
            f"--swa: {opened.path} holds no mean of epochs: it is made by a training with --swa, is in epoch and step "
            "checkpoints, and begins with the first epoch whose validation EER is not above --swa_below"
        )
    statistics: Mapping[str, Tensor] = mean.get(STATISTICS, {})
    taken = {**weights.state_dict, **mean["weights"], **statistics}
    return Mean(replace(weights, state_dict=taken), tuple(mean["epochs"]), bool(statistics))
