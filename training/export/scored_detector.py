"""What the exported file of a detector computes: waveforms in, log-probabilities and the score out."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from models.build import rebuild_detector
from models.detector import Detector, scores
from training.export.exportable import Exportable, Taken
from utils.audio.waveforms import CROP_SAMPLES, SAMPLE_RATE_HZ


def noise(batch_size: int, samples: int) -> Tensor:
    """Return (batch_size, samples) of white noise as loud as speech, the same in every run."""
    generator = torch.Generator().manual_seed(batch_size)
    return torch.randn(batch_size, samples, generator=generator) / 10


INPUT = "waveform"
OUTPUTS = ("log_probabilities", "score")
WAVEFORMS = Taken(INPUT, noise, CROP_SAMPLES, (32_300, 97_001), axis=1, least=SAMPLE_RATE_HZ, unit="samples")


class ScoredDetector(Exportable):
    """A detector, and the log-odds of bona fide beside its log-probabilities: so that nobody gets the columns wrong."""

    taken: ClassVar[Taken] = WAVEFORMS
    outputs: ClassVar[tuple[str, ...]] = OUTPUTS

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    @property
    def network(self) -> Detector:
        """The detector."""
        return self.detector

    def empty(self) -> Self:
        """Return a detector of this shape with random weights."""
        return type(self)(rebuild_detector(self.detector.settings, self.detector.front_end_config))

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (batch, 2), spoof then bona fide, and scores (batch,), of (batch, samples)."""
        log_probabilities = self.detector(waveform)
        return log_probabilities, scores(log_probabilities)
