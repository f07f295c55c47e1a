"""Weights to start from, out of any file that people of this field pass around: where they are found, how they fit.

A file is a state dict, or keeps one under one of the usual keys, its names maybe behind a wrapper's prefix (`module.`
of DataParallel, `_orig_mod.` of torch.compile, the attribute of a Lightning module). Nothing of that is guessed in
silence: `taken_text` says what was taken, and loading is strict.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.checkpoints.frozen_weights import made_whole
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.verified_file import VerifiedFile
from training.checkpoints.verified_load import load_verified
from utils.errors import UserError

# In the order in which they are looked for. In files of adversarial training the generator is the model.
WEIGHTS_KEYS = (
    "model_state_dict",
    "state_dict",
    "model",
    "model_state",
    "generator_state_dict",
    "generator",
    "net",
    "network",
    "weights",
)
_FRONT_END, _BACK_END = "front_end.", "back_end."
# Names in files of wav2vec2-family models, as transformers and fairseq write them.
_PRETRAINED_NAMES = ("encoder.layers.", "feature_extractor.", "wav2vec2.", "hubert.", "wavlm.")
_KEYS_SHOWN = 8


@dataclass(frozen=True)
class Weights:
    """The weights in a file. `payload` is the rest of what it holds, empty for a bare state dict.

    `key` is where in the file the state dict was, "" for the whole file, and `unused` are other state dicts beside it.
    `remarks` say what was done to bring them into the names and shapes of a detector (foreign_weights.py).
    """

    path: Path
    state_dict: Mapping[str, torch.Tensor]
    payload: Mapping[str, Any]
    key: str = ""
    unused: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def load_weights(opened: VerifiedFile) -> Weights:
    """Return the weights in a file: a checkpoint of ours, or a state dict, bare or under one of WEIGHTS_KEYS.

    Raises UserError where the file would run code or holds no weights, and where its frozen weights are not those that
    it was saved with.
    """
    path, facts = opened.path, opened.facts
    without = set(facts.parts) - set(facts.weights) if isinstance(facts, CheckpointRecord) else set()
    payload = made_whole(load_verified(opened, without), path, opened.frozen)
    if _is_state_dict(payload):
        return Weights(path, payload, {})
    places = _state_dicts(payload)
    mixed = next((key for key in WEIGHTS_KEYS if _holds_some_tensors(payload.get(key))), None)
    if not places and mixed:
        others = [str(name) for name, part in payload[mixed].items() if not isinstance(part, torch.Tensor)]
        raise UserError(
            f"{path}: `{mixed}` holds tensors and also {', '.join(others[:_KEYS_SHOWN])}, which is none: "
            "save the state dict alone under that key"
        )
    if not places:
        raise UserError(
            f"{path} holds no weights: found the keys {', '.join(map(str, list(payload)[:_KEYS_SHOWN])) or 'none'}, "
            f"and looked for a state dict under {', '.join(WEIGHTS_KEYS)} or at the top"
        )
    key = next(iter(places))
    others = [str(name) for name, part in payload.items() if name != key.split(".")[0] and _is_state_dict(part)]
    return Weights(path, places[key], payload, key, tuple(others))


def _state_dicts(payload: Mapping[str, Any]) -> dict[str, Mapping[str, torch.Tensor]]:
    """Return what lies under the usual keys, those at the top first and then those one level below."""
    parts = {key: payload[key] for key in WEIGHTS_KEYS if isinstance(payload.get(key), Mapping)}
    nested = {f"{outer}.{key}": part.get(key) for outer, part in parts.items() for key in WEIGHTS_KEYS}
    return {key: part for key, part in (parts | nested).items() if _is_state_dict(part)}


def _holds_some_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(part, torch.Tensor) for part in value.values())


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(part, torch.Tensor) for name, part in value.items())
    )


def load_into(network: torch.nn.Module, weights: Weights, advice: str = "") -> str:
    """Copy weights into a network, strictly, and return the prefix that was taken off their names, "" for none.

    `advice` is said where they do not fit; "": that of detectors.

    A prefix is taken off only where every name has it, and only if the names then fit better than as they are. Raises
    UserError that lists the layers which do not fit and the setting that is likely wrong.
    """
    own = network.state_dict()
    prefix, theirs = _named_to_fit(weights.state_dict, own)
    resized = [
        f"{name} is {tuple(theirs[name].shape)} there and {tuple(tensor.shape)} here"
        for name, tensor in own.items()
        if name in theirs and theirs[name].shape != tensor.shape
    ]
    missing = [name for name in own if name not in theirs]
    surplus = [name for name in theirs if name not in own]
    odd = [name for name, tensor in own.items() if name in theirs and _is_odd(theirs[name], tensor)]
    complaints = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("layers of another size", resized),
            ("missing", missing),
            ("unknown", surplus),
            ("sparse, complex or without values", odd),
        )
        if names
    ]
    if complaints:
        another = None if resized else _another_kind_of_file(own, missing, surplus)
        what = "model" if advice else "detector"
        advice = advice or another or _likely_setting(resized, missing, surplus)
        if odd and not (resized or missing or surplus):
            advice = "Save them as dense, real tensors"
        raise UserError(f"{weights.path} does not fit this {what}: {'; '.join(complaints)}. {advice}")
    network.load_state_dict(theirs, strict=True)
    return prefix


def _is_odd(theirs: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether a tensor cannot be copied into one of ours, or only by leaving some of it out."""
    is_complex = theirs.is_complex() and not own.is_complex()
    return theirs.layout is not torch.strided or theirs.is_meta or is_complex


def _named_to_fit(theirs: Mapping[str, torch.Tensor], own: Collection[str]) -> tuple[str, Mapping[str, torch.Tensor]]:
    """Return the prefix without which most names are the network's, the shortest of equals, and the weights then."""
    prefix, variants = "", [("", theirs)]
    while first := common_first_part(variants[-1][1]):
        prefix += first
        variants.append((prefix, {name.removeprefix(first): part for name, part in variants[-1][1].items()}))
    return max(variants, key=lambda variant: sum(name in own for name in variant[1]))


def common_first_part(names: Collection[str]) -> str:
    """Return what all dotted names begin with.

    >>> common_first_part(["module.a.weight", "module.b.weight"]), common_first_part(["a.weight", "b.weight"])
    ('module.', '')
    """
    first, dot, _ = next(iter(names)).partition(".")
    return first + dot if dot and all(name.startswith(first + dot) for name in names) else ""


def _another_kind_of_file(own: Collection[str], missing: list[str], surplus: list[str]) -> str | None:
    """Say what the file is where that explains it better than a setting does."""
    if any(name.startswith(_PRETRAINED_NAMES) for name in surplus):
        return "Most likely it is a pretrained front-end and no detector: pass its folder or hub name by --ssl_model"
    if not surplus and missing == [name for name in own if name.startswith(_BACK_END)]:
        return "It holds a front-end and no detector: pass a folder with it, as transformers saves it, by --ssl_model"
    if not surplus and missing == [name for name in own if name.startswith(_FRONT_END)]:
        return (
            "Most likely it comes from a run with --freeze_ssl and was saved without its front-end: "
            "--export checkpoint --model_path FILE makes a whole file of a checkpoint"
        )
    return None


def _likely_setting(resized: list[str], missing: list[str], surplus: list[str]) -> str:
    """Say which flag most likely differs from the one the weights were trained with."""
    if "centre" in missing + surplus:
        return "Most likely --loss differs: oc_softmax decides by a centre that it learns, in place of the last layers"
    names = " ".join(resized + missing + surplus)
    if resized and "front_end" in names:
        return "Most likely --ssl_model is not the front-end these weights were trained with"
    if not resized and all(".projection." in f".{name}" for name in missing + surplus):
        return "Most likely --use_contrastive differs: it adds the projection head"
    if len(missing) > 3 and len(surplus) > 3:
        return "Most likely the file is of another --model_type, or of another program with other layer names"
    return "Most likely --ssl_model or --model_type is not the one these weights were trained with"


def taken_text(weights: Weights, prefix: str) -> str:
    """Say in a line which weights a run starts from: where in the file they were, and what their names began with."""
    where = f"`{weights.key}` of {weights.path}" if weights.key else f"the whole of {weights.path}"
    parts = [f"Weights: {where}, {len(weights.state_dict)} tensors"]
    parts += [f"`{prefix}` taken off their names"] if prefix else []
    parts += [f"not used: {', '.join(weights.unused)}"] if weights.unused else []
    return "; ".join([", ".join(parts), *weights.remarks])
