"""safetensors: the weights alone, which cannot hold code. `--model_path` starts a run from such a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from training.checkpoints.weights import Weights, load_into
from training.export.exportable import Exportable, Score


def write(network: nn.Module, metadata: Mapping[str, str], file: BinaryIO) -> None:
    """Write the state dict of a network under its own names, with `metadata` in the header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    file.write(save(tensors, metadata=dict(metadata)))


def open_file(path: Path, like: Exportable) -> tuple[Score, dict[str, str]]:
    """Return a new network of the shape of `like` with the weights in a file, strictly, and the metadata there."""
    with safe_open(path, framework="pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
        metadata = dict(stored.metadata() or {})
    made = like.empty()
    load_into(made.network, Weights(path, tensors, {}))
    return made.eval(), metadata
