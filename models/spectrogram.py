"""The spectrogram_resnet18 and spectrogram_swin detectors: networks made for pictures, looking at a mel spectrogram.

They are torchvision's, with random weights, one channel in and two classes out. --model_path takes torchvision's own
files too, trained on photographs: without the last layer, and with the three channels of the first one summed
(training/checkpoints/foreign_weights.py).
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_norm import BatchNorm2d
from models.detector import Detector, DetectorOutput, DetectorSettings
from models.spectral_features import LogMel


class SpectrogramDetector(Detector):
    """A log-mel spectrogram, time running from left to right, a network without its last layer, and a linear layer.

    torchvision is imported where a network is made: most detectors need none of it.
    """

    def __init__(self, settings: DetectorSettings) -> None:
        super().__init__(settings)
        self.features = LogMel()
        self.backbone, width = self.make_backbone()
        self.output = nn.Linear(width, 2)

    @abstractmethod
    def make_backbone(self) -> tuple[nn.Module, int]:
        """Return a network from pictures (batch, 1, height, width) to (batch, features), and how many features."""

    @property
    def embedding_width(self) -> int:
        """That of the backbone's features."""
        return self.output.in_features

    def represent(self, waveform: Tensor) -> Tensor:
        """Return the embedding (batch, features) of `waveform` (batch, samples), 480 samples or more."""
        picture = self.features(waveform).transpose(1, 2).unsqueeze(1)
        embedding: Tensor = self.backbone(picture)
        return embedding

    def decide(self, representation: Tensor) -> DetectorOutput:
        """Return the decision and its embedding, which is `representation`."""
        return DetectorOutput(F.log_softmax(self.output(representation), dim=-1), embedding=representation)


class SpectrogramResnet18(SpectrogramDetector):
    """ResNet-18, He et al. 2016, arXiv 1512.03385; the embedding is (batch, 512).

    11,171,266 parameters: the published 11,689,512 less 513,000 of its last layer and 6,272 of two channels, and 1,026.
    """

    def make_backbone(self) -> tuple[nn.Module, int]:
        """Return it without its last layer."""
        from torchvision.models import resnet18  # noqa: PLC0415

        network = resnet18(norm_layer=BatchNorm2d)
        width = network.fc.in_features
        network.fc = nn.Identity()
        network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        return network, width


class SpectrogramSwin(SpectrogramDetector):
    """Swin Transformer, tiny, Liu et al. 2021, arXiv 2103.14030; the embedding is (batch, 768).

    27,517,820 parameters: the published 28,288,354 less 769,000 of its last layer and 3,072 of two channels, and 1,538.
    """

    def make_backbone(self) -> tuple[nn.Module, int]:
        """Return it without its last layer."""
        from torchvision.models import swin_t  # noqa: PLC0415

        network = swin_t()
        width = network.head.in_features
        network.head = nn.Identity()
        network.features[0][0] = nn.Conv2d(1, 96, 4, stride=4)
        return network, width
