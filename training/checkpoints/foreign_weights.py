"""Weights of other programs brought into the names and shapes that a detector here has; what was done comes with them.

Two kinds are known: a front-end that fairseq named, with a detector's own layers beside it or not, and networks of
torchvision that were trained on photographs. Everything else is handed back as it is, and so is what does not fit:
`weights.load_into` is strict, and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch

from models.fairseq_names import (
    FAIRSEQ_ANCHOR,
    TRANSFORMERS_ANCHOR,
    is_for_pretraining_only,
    transformers_name,
)
from training.checkpoints.weights import Weights, common_first_part

_FRONT_END, _BACK_END, _BACKBONE = "front_end.model.", "back_end.", "backbone."
# Of resnet18 and swin_t in torchvision: the layer that decides on classes of photographs.
_LAST_LAYERS = ("fc.", "head.")


def renamed_from_fairseq(weights: Weights, network: torch.nn.Module) -> Weights:
    """Return weights whose front-end has fairseq's names (wav2vec 2.0, XLS-R, HuBERT) under those of `network`.

    So are published the checkpoints of `sls` (QiShanZhang/SLSforASVspoof-2021-DF, `ssl_model.model.`) and of others
    after it. What only pretraining needs is left out. Layers beside the front-end are looked for in the network's
    back-end. Weights without such names, and those for a network without such a front-end, come back as given.
    """
    own = network.state_dict()
    place = _before(weights.state_dict, FAIRSEQ_ANCHOR)
    target = _before(own, _FRONT_END + TRANSFORMERS_ANCHOR)
    if place is None or target is None:
        return weights
    wrapper = _wrapper(weights.state_dict)
    renamed: dict[str, torch.Tensor] = {}
    left_out = []
    for name, tensor in weights.state_dict.items():
        inner = name.removeprefix(place)
        if not name.startswith(place):
            renamed[_found_in(own, target, name.removeprefix(wrapper))] = tensor
        elif is_for_pretraining_only(inner) or (inner == "mask_emb" and not _has_masking(own, target)):
            left_out.append(inner)
        else:
            renamed[target + _FRONT_END + transformers_name(inner)] = tensor
    what = f"the front-end{f' in `{place}`' if place else ''} has the names of fairseq, which were translated"
    unused = f"{len(left_out)} tensors of its pretraining not used ({', '.join(left_out[:3])})" if left_out else ""
    return replace(weights, state_dict=renamed, remarks=tuple(filter(None, (what, unused))))


def _before(names: Collection[str], anchor: str) -> str | None:
    """Return what comes before `anchor` in the first name that ends in it."""
    return next((name.removesuffix(anchor) for name in names if name.endswith(anchor)), None)


def _wrapper(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Return what all names begin with, such as `module.` of DataParallel."""
    prefix, names = "", list(state_dict)
    while first := common_first_part([name.removeprefix(prefix) for name in names]):
        prefix += first
    return prefix


def _found_in(own: Collection[str], base: str, name: str) -> str:
    places = (base + name, f"{base}{_BACK_END}{name}")
    return next((place for place in places if place in own), name)


def _has_masking(own: Collection[str], base: str) -> bool:
    return f"{base}{_FRONT_END}masked_spec_embed" in own


def adapted_from_photographs(weights: Weights, network: torch.nn.Module) -> Weights:
    """Return a state dict of torchvision's resnet18 or swin_t, trained on photographs, as one for a spectrogram.

    The three channels of the first convolution are summed: a spectrogram, which has one, then gives what a grey
    photograph with three times the same channel gave, where a mean would give a third of it. The last layer, of 1,000
    classes, is left out, and that of `network` stays as it was drawn. Other weights come back as given.
    """
    own = network.state_dict()
    base = next((name.partition(_BACKBONE)[0] for name in own if _BACKBONE in name), None)
    wrapper = _wrapper(weights.state_dict)
    theirs = {name.removeprefix(wrapper): tensor for name, tensor in weights.state_dict.items()}
    if base is None or any(base + name in own for name in theirs):
        return weights
    coloured = [name for name, tensor in theirs.items() if _is_coloured(tensor, own.get(base + _BACKBONE + name))]
    dropped = [name for name in theirs if name.startswith(_LAST_LAYERS)]
    if len(coloured) != 1 or not dropped:
        return weights
    kept = {base + _BACKBONE + name: tensor for name, tensor in theirs.items() if name not in dropped}
    first = base + _BACKBONE + coloured[0]
    kept[first] = kept[first].sum(dim=1, keepdim=True)
    # Files from before torch 0.4.1 do not count the batches that a batch norm has seen.
    drawn = {name: part for name, part in own.items() if not name.startswith(base + _BACKBONE) or "num_batches" in name}
    remarks = (
        f"trained on photographs: the three channels of `{coloured[0]}` summed into one",
        f"`{dropped[0].partition('.')[0]}` of {theirs[dropped[0]].shape[0]:,} classes not used, "
        "so that the last layer starts at random",
    )
    return replace(weights, state_dict=drawn | kept, remarks=remarks)


def _is_coloured(theirs: torch.Tensor, own: torch.Tensor | None) -> bool:
    """Whether a tensor is our convolution of one channel, for three."""
    if own is None or theirs.dim() != 4 or own.dim() != 4:
        return False
    return (theirs.shape[1], own.shape[1]) == (3, 1) and theirs[:, :1].shape == own.shape
