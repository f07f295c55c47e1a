"""The mean of the weights of the epochs whose validation EER no earlier epoch went below: SWA as AASIST does it.

An epoch joins at its end, before its checkpoint is written, so the mean is a part of every checkpoint and follows
from the history: a stop changes none of its bits. Source: clovaai/aasist main.py, which calls `update_swa` where
`best_dev_eer >= dev_eer`, `best_dev_eer` being 1 at first; torchcontrib's SWA has the running mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from training.checkpoints.history import History
from training.checkpoints.verified_file import VerifiedFile
from training.checkpoints.weights import Weights, load_weights
from utils.errors import UserError

SWA = "swa"
"""The key of the payload: `epochs`, those in the mean, and `weights`, the mean of each tensor that training changes."""


def joins(history: History, below: float) -> bool:
    """Whether the epoch that was completed last is one of the mean: no earlier one was better, nor is it above `below`.

    By the figure that decides, in percent, alone: of equal ones each joins.
    """
    name = history.figures.first.name
    *earlier, last = [row[name] for row in history.epochs]
    return last <= min([below, *earlier])


def with_epoch(mean: Mapping[str, Any] | None, network: nn.Module, epoch: int) -> dict[str, Any]:
    """Return the mean with one more epoch in it, in new tensors on the CPU; `mean` is None before the first.

    Running statistics of batch norms are averaged as weights are. What is frozen is left out: it is its own mean.
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


def load_mean(opened: VerifiedFile) -> tuple[Weights, list[int]]:
    """Return the weights in a checkpoint with the mean in place of those of its epoch, and the epochs in the mean."""
    weights = load_weights(opened)
    mean = weights.payload.get(SWA)
    if not mean:
        raise UserError(
            f"--swa: {opened.path} holds no mean of epochs: it is made by a training with --swa, is in epoch and step "
            "checkpoints, and begins with the first epoch whose validation EER is not above --swa_below"
        )
    taken: dict[str, torch.Tensor] = {**weights.state_dict, **mean["weights"]}
    return replace(weights, state_dict=taken), list(mean["epochs"])
