"""The self-supervised front-end: any wav2vec2-family model, giving the outputs of all its transformer layers.

The outputs are taken by hooks on the layers during one forward pass. `hidden_states` of transformers would not do:
whether its last entry is before or after the encoder's final layer norm depends on the version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.names import COMPACT
from models.pretrained import adapt_config, load_pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# XLS-R's architecture with a layer norm before each block, small enough to train on two cores. Its convolutions are
# normalised as in wav2vec2-base, over time in the first one only: with XLS-R's layer norm in each of them, random
# weights give every utterance nearly the same vector, and 14 epochs on the demo corpus stay at chance
# (benchmarks/compact_front_end.py).
COMPACT_CONFIG: dict[str, Any] = {
    "model_type": "wav2vec2",
    "hidden_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "conv_dim": [32] * 7,
    "conv_bias": False,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": True,
    "mask_time_prob": 0.0,
    # Without these two kinds of dropout a training step takes a third less time.
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}


class SelfSupervisedFrontEnd(nn.Module):
    """Turns waveforms into the stacked outputs of all transformer layers of `model`.

    With `normalize_waveform` each utterance is first brought to zero mean and unit variance. The default is the raw
    waveform, which detectors trained on ASVspoof 2019 LA with XLS-R use.
    """

    def __init__(self, model: PreTrainedModel, normalize_waveform: bool = False) -> None:
        super().__init__()
        self.model = model.train()
        self.normalize_waveform = normalize_waveform
        self.is_frozen = False
        _freeze_what_the_layers_do_not_use(model)

    def freeze(self) -> None:
        """Stop training it, for good: no parameter gets a gradient, no buffer changes, nothing is dropped out."""
        self.is_frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> SelfSupervisedFrontEnd:
        """Set training or evaluation mode; a frozen front-end stays in evaluation mode."""
        return super().train(mode and not self.is_frozen)

    @property
    def layer_count(self) -> int:
        """The number of transformer layers."""
        return len(self._layers())

    @property
    def width(self) -> int:
        """The width of a layer's output."""
        return int(self.model.config.hidden_size)

    def frame_count(self, samples: int) -> int:
        """Return how many frames a waveform of `samples` samples gives: 201 for 64,600 with XLS-R's convolutions."""
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    @property
    def front_end_config(self) -> dict[str, Any]:
        """The architecture as plain JSON values; `rebuild_front_end` makes the same module from it."""
        config: dict[str, Any] = json.loads(self.model.config.to_json_string(use_diff=False))
        config.pop("_name_or_path", None)
        return config

    def forward(self, waveform: Tensor) -> Tensor:
        """Return (batch, layers, frames, width) for `waveform` (batch, samples), float32 at 16 kHz.

        64,600 samples give 201 frames; fewer than 400 give none, which torch refuses.
        """
        if self.normalize_waveform:
            waveform = normalized(waveform)
        wants_gradients = torch.is_grad_enabled() and not self.is_frozen
        with torch.set_grad_enabled(wants_gradients), _collected_outputs(self._layers()) as outputs:
            self.model(waveform)
        return torch.stack(outputs, dim=1)

    def _layers(self) -> nn.ModuleList:
        layers = self.model.get_submodule("encoder.layers")
        assert isinstance(layers, nn.ModuleList)
        return layers


def normalized(waveform: Tensor) -> Tensor:
    """Return `waveform` (batch, samples) with zero mean and unit variance per utterance; silence stays near zero.

    The constant 1e-7 is that of transformers' Wav2Vec2FeatureExtractor, which XLS-R was pretrained with.
    """
    variance, mean = torch.var_mean(waveform, dim=-1, correction=0, keepdim=True)
    return (waveform - mean) / torch.sqrt(variance + 1e-7)


def load_front_end(ssl_model: str, normalize_waveform: bool = False) -> SelfSupervisedFrontEnd:
    """Return the front-end that `ssl_model` names, with its pretrained weights, in float32.

    `ssl_model` is a local folder, a file that fairseq saved, a Hugging Face hub name (downloaded once, then read from
    the cache without a network), or `compact`, a small model with random weights drawn by torch. Raises `UserError` if
    the weights cannot be had, are not of the wav2vec2 family, or do not fit exactly.
    """
    if ssl_model == COMPACT:
        return rebuild_front_end(COMPACT_CONFIG, normalize_waveform)
    return SelfSupervisedFrontEnd(load_pretrained(ssl_model), normalize_waveform)


def rebuild_front_end(config: dict[str, Any], normalize_waveform: bool = False) -> SelfSupervisedFrontEnd:
    """Return the front-end whose `front_end_config` is `config`, with random weights; loads no pretrained file."""
    from transformers import AutoConfig, AutoModel  # noqa: PLC0415  (4 s, paid only where a network is built)

    adapted = adapt_config(AutoConfig.for_model(**config))
    model = AutoModel.from_config(adapted, dtype=torch.float32)  # type: ignore[no-untyped-call]
    return SelfSupervisedFrontEnd(model, normalize_waveform)


def _freeze_what_the_layers_do_not_use(model: PreTrainedModel) -> None:
    """Mark weights that no layer output depends on as not trainable, so that every trainable one gets a gradient.

    These are the masking vector, the encoder's layer norm in models that apply it after their last layer, and the
    convolution of the conformer, which transformers makes for it but encodes positions otherwise.
    """
    unused = ["masked_spec_embed"]
    if getattr(model.config, "do_stable_layer_norm", False):
        unused += ["encoder.layer_norm."]
    if model.config.model_type == "wav2vec2-conformer":
        unused += ["encoder.layer_norm.", "encoder.pos_conv_embed."]
    for name, parameter in model.named_parameters():
        if name.startswith(tuple(unused)):
            parameter.requires_grad_(False)


@contextmanager
def _collected_outputs(layers: nn.ModuleList) -> Iterator[list[Tensor]]:
    """Collect the output of each layer called inside the block, in order; the hooks are gone after it."""
    outputs: list[Tensor] = []

    def collect(_layer: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(collect) for layer in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
