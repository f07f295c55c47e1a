"""The aasist and aasist_l detectors: graph attention over the spectrum and the time of the raw waveform.

Source: Jung et al. 2022, arXiv 2110.01200, and clovaai/aasist (models/AASIST.py; sizes in config/AASIST.conf and
config/AASIST-L.conf). Attributes have its names: models/weights/AASIST.pth and AASIST-L.pth load key for key.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_norm import BatchNorm2d
from models.detector import Detector, DetectorOutput, DetectorSettings
from models.graph_attention import GraphAttention, GraphPooling, HeterogeneousGraphAttention
from models.sinc_convolution import SincConvolution

NUM_FILTERS = 70
FILTER_TAPS = 128
NUM_BANDS = NUM_FILTERS // 3
NODE_TEMPERATURE = 2.0
GRAPH_TEMPERATURE = 100.0


@dataclass(frozen=True)
class AasistSizes:
    """Channels of the six residual blocks, widths of nodes, and the share of nodes each kind of pooling keeps."""

    channels: tuple[int, ...] = (32, 32, 64, 64, 64, 64)
    node_width: int = 64
    graph_width: int = 32
    spectral_share: float = 0.5
    temporal_share: float = 0.7
    graph_share: float = 0.5


SIZES = {
    "aasist": AasistSizes(),
    "aasist_l": AasistSizes((32, 32, 24, 24, 24, 24), 24, 32, spectral_share=0.4, temporal_share=0.5, graph_share=0.7),
}


class Aasist(Detector):
    """Fixed filters, residual blocks, a graph of bands and one of moments, and two branches over both together.

    297,866 parameters as aasist, 85,306 as aasist_l. The embedding is (batch, 5 * graph_width).
    """

    def __init__(self, settings: DetectorSettings) -> None:
        super().__init__(settings)
        sizes = SIZES[settings.model_type]
        width, inner = sizes.node_width, sizes.graph_width
        channels = (1, *sizes.channels)
        self.conv_time = SincConvolution(NUM_FILTERS, FILTER_TAPS)
        self.first_bn = BatchNorm2d(1)
        blocks = [ResidualBlock(*pair, number) for number, pair in enumerate(pairwise(channels))]
        self.encoder = nn.Sequential(*(nn.Sequential(block) for block in blocks))
        self.pos_S = nn.Parameter(torch.randn(1, NUM_BANDS, channels[-1]))
        self.master1 = nn.Parameter(torch.randn(1, 1, width))
        self.master2 = nn.Parameter(torch.randn(1, 1, width))
        self.GAT_layer_S = GraphAttention(channels[-1], width, NODE_TEMPERATURE)
        self.GAT_layer_T = GraphAttention(channels[-1], width, NODE_TEMPERATURE)
        self.HtrgGAT_layer_ST11 = HeterogeneousGraphAttention(width, inner, GRAPH_TEMPERATURE)
        self.HtrgGAT_layer_ST12 = HeterogeneousGraphAttention(inner, inner, GRAPH_TEMPERATURE)
        self.HtrgGAT_layer_ST21 = HeterogeneousGraphAttention(width, inner, GRAPH_TEMPERATURE)
        self.HtrgGAT_layer_ST22 = HeterogeneousGraphAttention(inner, inner, GRAPH_TEMPERATURE)
        self.pool_S = GraphPooling(sizes.spectral_share, width)
        self.pool_T = GraphPooling(sizes.temporal_share, width)
        self.pool_hS1 = GraphPooling(sizes.graph_share, inner)
        self.pool_hT1 = GraphPooling(sizes.graph_share, inner)
        self.pool_hS2 = GraphPooling(sizes.graph_share, inner)
        self.pool_hT2 = GraphPooling(sizes.graph_share, inner)
        self.drop_way = nn.Dropout(0.2)
        self.drop = nn.Dropout(0.5)
        self.out_layer = nn.Linear(5 * inner, 2)

    @property
    def embedding_width(self) -> int:
        """Five parts, each as wide as the nodes of the graphs."""
        return self.out_layer.in_features

    def represent(self, waveform: Tensor) -> Tensor:
        """Return maps (batch, channels, bands, moments) of `waveform` (batch, samples), 2,315 samples or more.

        There are 23 bands, and 29 moments of 64,600 samples.
        """
        image = F.max_pool2d(self.conv_time(waveform).abs().unsqueeze(1), 3)
        maps: Tensor = self.encoder(F.selu(self.first_bn(image)))
        return maps

    def decide(self, representation: Tensor) -> DetectorOutput:
        """Return the decision and its embedding, by the graphs of bands and moments of (batch, channels, both)."""
        embedding = self._embed(representation.abs())
        return DetectorOutput(F.log_softmax(self.out_layer(self.drop(embedding)), dim=-1), embedding=embedding)

    def _embed(self, maps: Tensor) -> Tensor:
        bands = maps.amax(dim=3).transpose(1, 2) + self.pos_S
        moments = maps.amax(dim=2).transpose(1, 2)
        spectral = self.pool_S(self.GAT_layer_S(bands))
        temporal = self.pool_T(self.GAT_layer_T(moments))
        branches = zip(
            self._branch(temporal, spectral, self.master1, 1),
            self._branch(temporal, spectral, self.master2, 2),
            strict=True,
        )
        temporal, spectral, master = (torch.maximum(*map(self.drop_way, pair)) for pair in branches)
        parts = [temporal.abs().amax(dim=1), temporal.mean(dim=1), spectral.abs().amax(dim=1), spectral.mean(dim=1)]
        return torch.cat([*parts, master.squeeze(1)], dim=1)

    def _branch(self, temporal: Tensor, spectral: Tensor, master: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return temporal and spectral nodes and the master after the two layers of one branch (1 or 2)."""

        def part(name: str) -> nn.Module:
            return self.get_submodule(f"{name}{number}")

        first, second = (self.get_submodule(f"HtrgGAT_layer_ST{number}{layer}") for layer in (1, 2))
        temporal, spectral, master = first(temporal, spectral, master)
        nodes = (part("pool_hT")(temporal), part("pool_hS")(spectral), master)
        refined = second(*nodes)
        temporal, spectral, master = (before + after for before, after in zip(nodes, refined, strict=True))
        return temporal, spectral, master


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, then the greatest of every three moments.

    The published code computes a first normalisation, bn1, and goes on with what was there before it. Its weights are
    here since they are in the published files; nothing depends on them, so they are not trained and cost no time.
    """

    def __init__(self, channels: int, out_channels: int, number: int) -> None:
        super().__init__()
        if number > 0:
            self.bn1 = BatchNorm2d(channels).requires_grad_(False)
        self.conv1 = nn.Conv2d(channels, out_channels, (2, 3), padding=(1, 1))
        self.bn2 = BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, (2, 3), padding=(0, 1))
        if channels != out_channels:
            self.conv_downsample = nn.Conv2d(channels, out_channels, (1, 3), padding=(0, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return (batch, out_channels, bands, moments // 3) for `image` (batch, channels, bands, moments)."""
        shortcut = _convolved(image, self.conv_downsample) if hasattr(self, "conv_downsample") else image
        image = self.bn2(_convolved(image, self.conv1))
        image = _convolved(F.selu(image, inplace=True), self.conv2)
        return F.max_pool2d(image + shortcut, (1, 3))


def _convolved(image: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return `layer` of `image`, with the channels of a place side by side in memory, as its weight then is.

    A training step on a CPU then takes a quarter less. Parameters keep the usual layout, for all that saves them.
    """
    # A clone: with one channel torch takes a weight for being in either layout, and `contiguous` would do nothing.
    weight = layer.weight.clone(memory_format=torch.channels_last)
    return F.conv2d(image, weight, layer.bias, padding=layer.padding)
