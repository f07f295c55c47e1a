"""What an exported file computes: waveforms in, log-probabilities and the score out."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from models.detector import Detector, scores

INPUT = "waveform"
OUTPUTS = ("log_probabilities", "score")

Score = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From waveforms (batch, samples) to log-probabilities (batch, 2) and scores (batch,)."""


class ScoredDetector(nn.Module):
    """A detector, and the log-odds of bona fide beside its log-probabilities: so that nobody gets the columns wrong."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (batch, 2), spoof then bona fide, and scores (batch,), of (batch, samples)."""
        log_probabilities = self.detector(waveform)
        return log_probabilities, scores(log_probabilities)
