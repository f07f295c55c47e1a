"""Weights that training never changes: their content hash, and checkpoints without them and whole again.

The hash is SHA-256 over the tensors in the order of their names (as strings compare in Python). For each: one line of
JSON in ASCII, `["name", "dtype", [sizes]]`, dtype as torch prints it without "torch.", a line break, then the values,
contiguous, row-major, in little-endian. So it does not depend on the device, on strides or on how torch saved them.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.front_end import SelfSupervisedFrontEnd
from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.frozen_reference import FROZEN_KEY, WEIGHTS_KEY, FrozenFile, FrozenReference
from training.checkpoints.verified_file import VerifiedFile, open_frozen
from training.checkpoints.verified_load import load_verified
from utils.errors import UserError


@dataclass(frozen=True, eq=False)
class FrozenWeights:
    """The frozen tensors of a network by their names in its state dict (live ones, not copies), and their reference."""

    reference: FrozenReference
    tensors: Mapping[str, Tensor]


def frozen_weights(network: nn.Module) -> FrozenWeights | None:
    """Return what training never changes in a network, None for nothing; hashes it, so ask once per run.

    That is every parameter and buffer of a frozen front-end: it is in evaluation mode, so its buffers stay too.
    """
    prefixes = tuple(
        f"{name}."
        for name, module in network.named_modules()
        if isinstance(module, SelfSupervisedFrontEnd) and module.is_frozen
    )
    tensors = {name: tensor for name, tensor in network.state_dict().items() if prefixes and name.startswith(prefixes)}
    if not tensors:
        return None
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return FrozenWeights(FrozenReference.of(content_sha256(tensors), size), tensors)


def content_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the hash that this module's docstring defines, in hexadecimal; brings one tensor at a time to the CPU."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        head = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(json.dumps(head).encode("ascii") + b"\n")
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def without_frozen(payload: Mapping[str, Any], frozen: FrozenWeights | None) -> dict[str, Any]:
    """Return a payload that refers to the frozen weights and holds the others; copies nothing and hashes nothing.

    `model_state_dict` keeps what changes, and `frozen_weights` says as plain values what is missing there.
    """
    if frozen is None:
        return dict(payload)
    state_dict = payload[WEIGHTS_KEY]
    changing = OrderedDict((name, part) for name, part in state_dict.items() if name not in frozen.tensors)
    reference = frozen.reference.as_dict() | {"names": list(frozen.tensors)}
    return {**payload, WEIGHTS_KEY: _with_versions_of(state_dict, changing), FROZEN_KEY: reference}


def with_frozen(payload: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a payload that is whole again, frozen weights first, given the tensors that it refers to."""
    whole = OrderedDict([*tensors.items(), *payload[WEIGHTS_KEY].items()])
    made = {**payload, WEIGHTS_KEY: _with_versions_of(payload[WEIGHTS_KEY], whole)}
    del made[FROZEN_KEY]
    return made


def _with_versions_of(state_dict: Any, made: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Keep the versions of modules that torch notes at a state dict, by which it reads older ones."""
    if hasattr(state_dict, "_metadata"):
        made._metadata = state_dict._metadata  # type: ignore[attr-defined]
    return made


def made_whole(payload: dict[str, Any], path: Path, opened: VerifiedFile | None = None) -> dict[str, Any]:
    """Return the payload of the checkpoint `path` with its frozen weights in it, every bit and their hash verified.

    They are those in `opened`, or are looked for where that is None or another file than the payload refers to.
    Raises UserError where they are missing, damaged, or not those that the checkpoint was saved with.
    """
    if FROZEN_KEY not in payload:
        return payload
    try:
        needed = FrozenReference.from_dict(payload[FROZEN_KEY])
        names = list(payload[FROZEN_KEY]["names"])
    except (TypeError, ValueError, LookupError) as error:
        raise UserError(f"{path} is damaged: its reference to frozen weights makes no sense ({error})") from error
    try:
        is_it = opened is not None and isinstance(opened.facts, FrozenFile) and opened.facts.sha256 == needed.sha256
        file = opened if opened and is_it else open_frozen(path, needed)
    except BadCheckpointFileError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    stored = load_verified(file).get(WEIGHTS_KEY, {})
    if set(stored) != set(names) or content_sha256(stored) != needed.sha256:
        raise UserError(f"{path} cannot be used: {file.path} does not hold the weights that it was saved with")
    return with_frozen(payload, {name: stored[name] for name in names})
