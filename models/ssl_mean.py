"""The ssl_mean detector: the mean of all layers and frames of a self-supervised front-end, and a linear layer.

The least that can be built on a front-end. What a better back-end is worth is its distance from this one.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from models.detector import DetectorOutput, DetectorSettings
from models.front_end import SelfSupervisedFrontEnd
from models.front_end_detector import FrontEndDetector


class SslMean(FrontEndDetector):
    """A self-supervised front-end and 2 width + 2 parameters: 2,050 on XLS-R. The embedding is (batch, width)."""

    def __init__(self, settings: DetectorSettings, front_end: SelfSupervisedFrontEnd) -> None:
        super().__init__(settings, front_end)
        self.back_end = nn.Linear(front_end.width, 2)

    def decide(self, representation: Tensor) -> DetectorOutput:
        """Return the decision and its embedding for the layers of the front-end, (batch, layers, frames, width)."""
        embedding = representation.mean(dim=(1, 2))
        return DetectorOutput(F.log_softmax(self.back_end(embedding), dim=-1), embedding=embedding)
