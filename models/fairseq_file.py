"""A front-end out of a file that fairseq saved, such as xlsr2_300m.pt: its shape is read off its tensors.

What tensors do not say, fairseq's own settings in the file do (`cfg`, since 2021): the number of attention heads, and
where the layer norms are. Without them the rule holds that wav2vec 2.0, XLS-R 300M and HuBERT follow as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from models.fairseq_names import FAIRSEQ_ANCHOR, is_for_pretraining_only, transformers_name
from utils.errors import UserError
from utils.inert_pickle import BAD_PICKLE
from utils.regular_files import open_regular

# Strides are in no tensor. These kernels and strides are those of every published model.
_KERNELS, _STRIDES = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]
_WIDTH_OF_A_HEAD = 64
# What transformers' config.json of XLS-R has, and what fairseq calls it.
_DROPOUTS = {
    "hidden_dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
    "feat_proj_dropout": ("dropout_input", 0.1),
}


class _Dropped:
    """Stands where files from before 2021 have their settings as a Namespace; keeps nothing of them."""

    def __setstate__(self, state: Any) -> None:
        """Take what the settings would have been."""


@dataclass(frozen=True)
class FairseqFile:
    """What is in such a file: the `config` of transformers' Wav2Vec2Model, and the weights under its names."""

    config: dict[str, Any]
    state_dict: dict[str, torch.Tensor]


def read_fairseq_file(path: Path) -> FairseqFile:
    """Read a file of fairseq's; what only pretraining or a recognition head needs is left out.

    Raises UserError where it is damaged, would run code, or holds no model of this family.
    """
    try:
        with open_regular(path) as file, torch.serialization.safe_globals([(_Dropped, "argparse.Namespace")]):
            payload = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, UnpicklingError, *BAD_PICKLE) as error:
        raise _refused(path, (str(error).strip().splitlines() or [type(error).__name__])[0]) from error
    model = payload.get("model", payload) if isinstance(payload, Mapping) else {}
    tensors = {name: part for name, part in model.items() if isinstance(part, torch.Tensor)}
    place = next((name.removesuffix(FAIRSEQ_ANCHOR) for name in tensors if name.endswith(FAIRSEQ_ANCHOR)), None)
    if place is None:
        raise _refused(path, f"it has no {FAIRSEQ_ANCHOR}")
    inner = {name.removeprefix(place): part for name, part in tensors.items() if name.startswith(place)}
    used = {name: part for name, part in inner.items() if not is_for_pretraining_only(name)}
    try:
        config = _config(used, _settings(payload))
    except KeyError as error:
        raise _refused(path, f"it has no {error.args[0]}") from error
    except ValueError as error:
        raise _refused(path, str(error)) from error
    return FairseqFile(config, {transformers_name(name): part for name, part in used.items()})


def _refused(path: Path, reason: str) -> UserError:
    return UserError(
        f"--ssl_model {path} is a file and none that fairseq saved of wav2vec 2.0, XLS-R or HuBERT ({reason}): pass "
        "such a file, a folder with config.json and weights, or a hub name"
    )


def _settings(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    config = payload.get("cfg")
    model = config.get("model") if isinstance(config, Mapping) else None
    return model if isinstance(model, Mapping) else {}


def _config(tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
    convolutions = [tensors[f"feature_extractor.conv_layers.{number}.0.weight"] for number in range(len(_KERNELS))]
    kernels = [part.shape[2] for part in convolutions]
    if kernels != _KERNELS:
        raise ValueError(f"its convolutions are {kernels} wide and not {_KERNELS}, so their strides are not known")
    width = tensors["post_extract_proj.weight"].shape[0]
    has_layer_norms = "feature_extractor.conv_layers.0.2.1.weight" in tensors
    positions = tensors["encoder.pos_conv.0.weight_v"]
    return {
        "model_type": "wav2vec2",
        "hidden_size": width,
        "num_hidden_layers": sum(name.endswith(".self_attn.k_proj.weight") for name in tensors),
        "num_attention_heads": int(settings.get("encoder_attention_heads", max(1, width // _WIDTH_OF_A_HEAD))),
        "intermediate_size": tensors["encoder.layers.0.fc1.weight"].shape[0],
        "conv_dim": [part.shape[0] for part in convolutions],
        "conv_kernel": _KERNELS,
        "conv_stride": _STRIDES,
        "conv_bias": "feature_extractor.conv_layers.0.0.bias" in tensors,
        "feat_extract_norm": "layer" if has_layer_norms else "group",
        "do_stable_layer_norm": bool(settings.get("layer_norm_first", has_layer_norms)),
        "num_conv_pos_embeddings": positions.shape[2],
        "num_conv_pos_embedding_groups": width // positions.shape[1],
        **{ours: float(settings.get(theirs, default)) for ours, (theirs, default) in _DROPOUTS.items()},
    }
