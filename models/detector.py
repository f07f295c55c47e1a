"""What every detector is: waveforms in, log-probabilities out, and optionally why.

Spoof is column 0 and bona fide column 1 everywhere, and a higher score always means bona fide.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.names import DETECTOR_TYPES, FRONT_END_TYPES, TEMPORAL_BIASES, XLS_R_300M
from utils.errors import EXIT_USAGE, UserError

SPOOF = 0
BONA_FIDE = 1


@dataclass(frozen=True)
class DetectorSettings:
    """What makes one detector differ from another; plain values only, so `dataclasses.asdict` can be saved.

    Raises `UserError`, naming the flag, for a value that no detector can be built from.

    >>> DetectorSettings(group_size=0)
    Traceback (most recent call last):
    ...
    utils.errors.UserError: --group_size must be a whole number of layers, 1 or more, found 0: pass 3, for example
    """

    model_type: str = "g3_heatmap"
    group_size: int = 3
    use_contrastive: bool = False
    ssl_model: str = XLS_R_300M
    temporal_bias: str = "centre"
    normalize_waveform: bool = False
    freeze_ssl: bool = False
    one_class: bool = False

    def __post_init__(self) -> None:
        _require_one_of("--model_type", self.model_type, DETECTOR_TYPES)
        _require_one_of("--temporal_bias", self.temporal_bias, TEMPORAL_BIASES)
        if not isinstance(self.group_size, int) or isinstance(self.group_size, bool) or self.group_size < 1:
            raise UserError(
                f"--group_size must be a whole number of layers, 1 or more, found {self.group_size}: "
                "pass 3, for example",
                exit_code=EXIT_USAGE,
            )
        if self.model_type in FRONT_END_TYPES and not self.ssl_model.strip():
            raise UserError(
                f"--ssl_model must name a model, found an empty name: pass {XLS_R_300M}, a folder, or compact",
                exit_code=EXIT_USAGE,
            )


def _require_one_of(flag: str, found: str, allowed: tuple[str, ...]) -> None:
    if found not in allowed:
        raise UserError(f"{flag} must be one of {', '.join(allowed)}, found '{found}'", exit_code=EXIT_USAGE)


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """Where a detector looked; every tensor is at least 0 and sums to 1 along its last dimension.

    `temporal` (batch, layers, frames) is the attention of each layer over time, `intra` (batch, groups, group_size)
    that of each group over its layers, `inter` (batch, groups) that over the groups. Layer l (from 0) is member
    l % group_size of group l // group_size; members past the last layer have exactly zero weight.
    """

    temporal: Tensor
    intra: Tensor
    inter: Tensor

    def layer_importance(self) -> Tensor:
        """Return the share of each layer in the decision, inter x intra, as (batch, layers); each row sums to 1."""
        shares = (self.inter.unsqueeze(-1) * self.intra).flatten(start_dim=1)
        return shares[:, : self.temporal.shape[1]]

    def time_importance(self) -> Tensor:
        """Return the share of each frame, the sum over layers of inter x intra x temporal, as (batch, frames).

        Each row sums to 1.
        """
        return (self.layer_importance().unsqueeze(1) @ self.temporal).squeeze(1)


@dataclass(frozen=True, eq=False)
class DetectorOutput:
    """Everything a detector says about a batch of waveforms.

    `log_probabilities` (batch, 2): natural logarithms, spoof then bona fide. `embedding` (batch, dim): what the
    decision is made from. `projection` (batch, 256): of length 1, for contrastive training. None: not offered.
    """

    log_probabilities: Tensor
    embedding: Tensor | None = None
    projection: Tensor | None = None
    attention: AttentionWeights | None = None


class Detector(nn.Module, ABC):
    """A network that tells bona fide speech from spoofed speech."""

    def __init__(self, settings: DetectorSettings) -> None:
        super().__init__()
        self.settings = settings

    @property
    def front_end_config(self) -> dict[str, Any]:
        """The front-end's architecture as plain values, enough to rebuild it without its pretrained weights.

        Empty for a detector without one.
        """
        return {}

    @property
    def embedding_width(self) -> int | None:
        """The length of an embedding, which `--loss oc_softmax` must know; None for a detector that offers none."""
        return None

    @abstractmethod
    def represent(self, waveform: Tensor) -> Tensor:
        """Return what the detector hears in `waveform` (batch, samples), float32 at 16 kHz in [-1, 1].

        This is nearly all of the work, and what `--precision bf16` computes in bfloat16.
        """

    @abstractmethod
    def decide(self, representation: Tensor) -> DetectorOutput:
        """Return all the detector says about what `represent` gave.

        Called by `analyse` alone: `representation` is float32, and so is what is computed here, whatever --precision
        says. In bfloat16 the scores of hundreds of utterances would be the same few numbers.
        """

    def analyse(self, waveform: Tensor) -> DetectorOutput:
        """Return all the detector says about `waveform` (batch, samples), float32 at 16 kHz in [-1, 1]."""
        representation = self.represent(waveform)
        with torch.autocast(representation.device.type, enabled=False):
            return self.decide(representation.to(torch.promote_types(representation.dtype, torch.float32)))

    def forward(self, waveform: Tensor) -> Tensor:
        """Return log-probabilities (batch, 2), spoof then bona fide, of `waveform` (batch, samples) at 16 kHz."""
        return self.analyse(waveform).log_probabilities


def scores(log_probabilities: Tensor) -> Tensor:
    """Return the log-odds of bona fide, log p(bona fide) - log p(spoof), as (batch,); higher means bona fide.

    Log-odds rank as probabilities do but do not saturate at 1, so they keep apart what probabilities tie.

    >>> import torch
    >>> scores(torch.tensor([[0.25, 0.75]]).log()).exp().round(decimals=4)
    tensor([3.])
    """
    return log_probabilities[:, BONA_FIDE] - log_probabilities[:, SPOOF]
