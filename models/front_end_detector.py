"""What all detectors on a self-supervised front-end have in common: they decide by the outputs of all its layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from models.detector import Detector, DetectorSettings
from models.front_end import SelfSupervisedFrontEnd


class FrontEndDetector(Detector):
    """A detector whose embedding is as wide as the layers of its front-end; `decide` is left to each."""

    def __init__(self, settings: DetectorSettings, front_end: SelfSupervisedFrontEnd) -> None:
        super().__init__(settings)
        self.front_end = front_end

    @property
    def front_end_config(self) -> dict[str, Any]:
        """The front-end's architecture as plain values, for `rebuild_front_end`."""
        return self.front_end.front_end_config

    @property
    def embedding_width(self) -> int:
        """That of the front-end's layers."""
        return self.front_end.width

    def represent(self, waveform: Tensor) -> Tensor:
        """Return (batch, layers, frames, width) for `waveform` (batch, samples), 400 samples or more."""
        layers: Tensor = self.front_end(waveform)
        return layers
