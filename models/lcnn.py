"""The lcnn detector: cepstra, a light convolutional network that keeps the greater of two maps, and LSTMs over time.

Source: the LFCC-LCNN baseline of ASVspoof 2021 (asvspoof-challenge/2021 LA/Baseline-LFCC-LCNN), which is LCNN-LSTM-sum
of Wang and Yamagishi 2021, arXiv 2103.11326. It is the variant with LSTMs, since that is the baseline which others are
compared with, and it takes utterances of any length. Trained there with a learning rate of 3e-4 and batches of 64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_norm import BatchNorm2d
from models.detector import Detector, DetectorOutput, DetectorSettings
from models.spectral_features import Lfcc

TIMES_HALVED = 4
DROPOUT = 0.7


@dataclass(frozen=True)
class LayerShape:
    """A convolution whose output has twice the maps that are kept; then, if so, halved in size and normalised."""

    channels: int
    maps_kept: int
    kernel: int
    is_halved: bool
    is_normalised: bool


LAYERS = (
    LayerShape(1, 32, 5, is_halved=True, is_normalised=False),
    LayerShape(32, 32, 1, is_halved=False, is_normalised=True),
    LayerShape(32, 48, 3, is_halved=True, is_normalised=True),
    LayerShape(48, 48, 1, is_halved=False, is_normalised=True),
    LayerShape(48, 64, 3, is_halved=True, is_normalised=False),
    LayerShape(64, 64, 1, is_halved=False, is_normalised=True),
    LayerShape(64, 32, 3, is_halved=False, is_normalised=True),
    LayerShape(32, 32, 1, is_halved=False, is_normalised=True),
    LayerShape(32, 32, 3, is_halved=True, is_normalised=False),
)


class Lcnn(Detector):
    """Nine convolutions, two LSTMs in both directions beside a shortcut, the mean over time, and one log-odds.

    269,729 parameters: 157,504 in the convolutions, 112,128 in the LSTMs, 97 in the last layer. The embedding is
    (batch, 96).
    """

    def __init__(self, settings: DetectorSettings) -> None:
        super().__init__(settings)
        self.features = Lfcc()
        self.convolutions = nn.Sequential(*(_layer(shape) for shape in LAYERS), nn.Dropout(DROPOUT))
        width = LAYERS[-1].maps_kept * (Lfcc.width // 2**TIMES_HALVED)
        self.lstm = nn.LSTM(width, width // 2, num_layers=2, bidirectional=True, batch_first=True)
        self.output = nn.Linear(width, 1)

    @property
    def embedding_width(self) -> int:
        """That of the mean over time."""
        return self.output.in_features

    def represent(self, waveform: Tensor) -> Tensor:
        """Return (batch, moments, 96) for `waveform` (batch, samples), 2,400 samples or more."""
        maps: Tensor = self.convolutions(self.features(waveform).unsqueeze(1))  # (batch, maps, moments, coefficients)
        return maps.transpose(1, 2).flatten(start_dim=2)

    def decide(self, representation: Tensor) -> DetectorOutput:
        """Return the decision and its embedding for moments, (batch, moments, 96)."""
        embedding = (self.lstm(representation)[0] + representation).mean(dim=1)
        log_odds = self.output(embedding)
        # The published network ends in one sigmoid: the same probabilities, and the same number of parameters.
        return DetectorOutput(F.logsigmoid(torch.cat([-log_odds, log_odds], dim=-1)), embedding=embedding)


class MaxFeatureMap(nn.Module):
    """Keeps the greater of map i and map i + half, for each place: half as many maps. Source: arXiv 1511.02683."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return (batch, channels / 2, height, width) for `maps` (batch, channels, height, width)."""
        first, second = maps.chunk(2, dim=1)
        # The greater of both, to rounding: torch.maximum takes three times as long, most of it in its gradient.
        return first + F.relu(second - first)


def _layer(shape: LayerShape) -> nn.Sequential:
    parts: list[nn.Module] = [
        nn.Conv2d(shape.channels, 2 * shape.maps_kept, shape.kernel, padding=shape.kernel // 2),
        MaxFeatureMap(),
    ]
    if shape.is_halved:
        parts.append(nn.MaxPool2d(2))
    if shape.is_normalised:
        parts.append(BatchNorm2d(shape.maps_kept, affine=False))
    return nn.Sequential(*parts)
