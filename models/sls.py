"""The sls detector: all layers of a self-supervised front-end, each let through as far as the utterance asks for it.

Source: Zhang, Wen and Hu 2024, "Audio Deepfake Detection with Self-Supervised XLS-R and SLS Classifier", ACM
Multimedia, and QiShanZhang/SLSforASVspoof-2021-DF (model.py, commit 82e8af0), whose names of layers are kept. Those of
XLS-R, which are fairseq's there, are translated where weights are loaded (models/fairseq_names.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_norm import BatchNorm2d
from models.detector import DetectorOutput, DetectorSettings
from models.front_end import SelfSupervisedFrontEnd
from models.front_end_detector import FrontEndDetector

INPUT_SAMPLES = 64_600
POOLED = 3


class Sls(FrontEndDetector):
    """A self-supervised front-end, all of its layers, and `LayerSelection` on top, for inputs of 64,600 samples."""

    def __init__(self, settings: DetectorSettings, front_end: SelfSupervisedFrontEnd) -> None:
        super().__init__(settings, front_end)
        self.back_end = LayerSelection(front_end.width, front_end.frame_count(INPUT_SAMPLES))

    def represent(self, waveform: Tensor) -> Tensor:
        """Return (batch, layers, frames, width) for `waveform` (batch, samples), of any length but none.

        The last layers are as wide as 64,600 samples give frames, so a longer waveform is cut and a shorter one
        repeated, as the published code prepares its data.
        """
        return super().represent(fitted(waveform, INPUT_SAMPLES))

    def decide(self, representation: Tensor) -> DetectorOutput:
        """Return the decision and its embedding for the layers of the front-end, (batch, layers, frames, width)."""
        output: DetectorOutput = self.back_end(representation)
        return output


class LayerSelection(nn.Module):
    """A gate for each layer from its mean over time, the sum of what they let through, and two linear layers.

    23,399,429 parameters for `width` 1024 and 201 frames, which is XLS-R. The embedding is (batch, width).
    """

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.first_bn = BatchNorm2d(1)
        self.fc0 = nn.Linear(width, 1)
        self.fc1 = nn.Linear((frames // POOLED) * (width // POOLED), width)
        self.fc3 = nn.Linear(width, 2)

    def forward(self, layers: Tensor) -> DetectorOutput:
        """Return the decision and its embedding for `layers` (batch, layers, frames, width)."""
        selected = torch.einsum("bl,bltw->btw", self.gates(layers), layers)
        image = F.max_pool2d(F.selu(self.first_bn(selected.unsqueeze(1))), POOLED)
        embedding = F.selu(self.fc1(image.flatten(start_dim=1)))
        # SELU after the last layer too: it is in the published code, and its figures are with it.
        logits = F.selu(self.fc3(embedding))
        return DetectorOutput(F.log_softmax(logits, dim=-1), embedding=embedding)

    def gates(self, layers: Tensor) -> Tensor:
        """Return how far each layer is let through, (batch, layers) from 0 to 1; they need not sum to 1."""
        return torch.sigmoid(self.fc0(layers.mean(dim=2))).squeeze(-1)


def fitted(waveform: Tensor, samples: int) -> Tensor:
    """Return the first `samples` of `waveform` (batch, samples), repeated from its start where it is shorter.

    >>> fitted(torch.tensor([[1, 2, 3]]), 7)
    tensor([[1, 2, 3, 1, 2, 3, 1]])
    """
    return waveform.repeat(1, -(-samples // waveform.shape[1]))[:, :samples]
