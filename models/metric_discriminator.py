"""A discriminator that learns to predict a measure of what a generator makes: MetricGAN, in the form that CMGAN has.

Architecture and names of weights are those of ruizhecao96/CMGAN src/models/discriminator.py (arXiv 2203.15149, which
has the idea from MetricGAN, arXiv 1905.04874). In goes a pair of spectra, of the source and of what was made of it, as
src/train.py there makes them, but for what keeps their gradient finite where there is silence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.log_mel import mirrored
from models.normed_convolutions import SpectralNormedConv2d, SpectralNormedLinear

_WINDOW_SAMPLES, _HOP_SAMPLES = 400, 100
_COMPRESSION = 0.3
_LEAST_POWER = 1e-9
_WIDTH = 16
_SLOPES = 0.25  # of PReLU at first


class CompressedSpectra(nn.Module):
    """Magnitudes to the power of 0.3 of a source and of what was made of it, both by the level of the source.

    Nothing is learned, and nothing is in the state_dict.
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hamming_window(_WINDOW_SAMPLES), persistent=False)

    def forward(self, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """Return two tensors (batch, 1, 201, samples // 100 + 1) of waveforms (batch, samples), at least 201 of them.

        In float32, also under autocast.
        """
        with torch.autocast(real.device.type, enabled=False):
            power = real.float().square().mean(dim=1, keepdim=True)
            level = torch.clamp(power, min=_LEAST_POWER).sqrt()
            return self._of(real.float() / level), self._of(made.float() / level)

    def _of(self, waveform: Tensor) -> Tensor:
        beyond = _WINDOW_SAMPLES // 2
        padded = mirrored(waveform, beyond, beyond)  # as torch.stft centres frames, with a deterministic gradient
        spectrum = torch.stft(
            padded, _WINDOW_SAMPLES, _HOP_SAMPLES, window=self.window, center=False, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square() + _LEAST_POWER
        return (power ** (_COMPRESSION / 2)).unsqueeze(1)


class MetricDiscriminator(nn.Module):
    """From a pair of `CompressedSpectra` to a number in (0, 1): 1 for what is as good as its source."""

    def __init__(self) -> None:
        super().__init__()
        widths = [_WIDTH * 2**depth for depth in range(4)]
        parts: list[nn.Module] = []
        for inputs, outputs in zip((2, *widths[:-1]), widths, strict=True):
            parts += [
                SpectralNormedConv2d(inputs, outputs, 4, stride=2, padding=1),
                nn.InstanceNorm2d(outputs, affine=True),
                nn.PReLU(outputs, _SLOPES),
            ]
        parts += [
            _Greatest(),
            nn.Flatten(),
            SpectralNormedLinear(widths[-1], widths[-2]),
            nn.Dropout(0.3),
            nn.PReLU(widths[-2], _SLOPES),
            SpectralNormedLinear(widths[-2], 1),
            _LearnableSigmoid(),
        ]
        self.layers = nn.Sequential(*parts)

    def forward(self, real: Tensor, made: Tensor) -> Tensor:
        """Return what is said (batch,), float32, of spectra (batch, 1, bands, frames) of sources and of what was made.

        The vectors of the spectral norm move at each call in training mode.
        """
        said: Tensor = self.layers(torch.cat([real, made], dim=1))
        return said.squeeze(1).float()


class _Greatest(nn.Module):
    """Pools globally, as AdaptiveMaxPool2d(1) does, whose gradient has no deterministic form on CUDA."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return (batch, channels, 1, 1) of maps (batch, channels, bands, frames)."""
        return maps.amax(dim=(2, 3), keepdim=True)


class _LearnableSigmoid(nn.Module):
    """A sigmoid whose steepness is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, values: Tensor) -> Tensor:
        """Return values in (0, 1)."""
        return torch.sigmoid(self.slope * values)
