"""HiFi-GAN (arXiv 2010.05646): a generator from mel spectrograms to waveforms, and the discriminators that train it.

Architecture and names of weights are those of the published code (jik876/hifi-gan models.py), so that its files load.
The published `init_weights` is not here: it draws values for a tensor that weight norm computes anew before its first
use, and so has no effect there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.log_mel import HOP_SAMPLES, NUM_BANDS, mirrored
from models.normed_convolutions import (
    SpectralNormedConv1d,
    WeightNormedConv1d,
    WeightNormedConv2d,
    WeightNormedConvTranspose1d,
)

_SLOPE = 0.1
_PERIODS = (2, 3, 5, 7, 11)

Judged = tuple[list[Tensor], list[list[Tensor]]]
"""What discriminators say of waveforms: a tensor of each, and the maps of each on its way there."""


@dataclass(frozen=True)
class VocoderShape:
    """What makes one size of the vocoder differ from another.

    `residual` are the dilations of the blocks after each upsampling, for each of `kernels`; with `is_doubled` each
    dilated convolution is followed by one without. `period_widths` and `scale_widths` are the channels of the
    discriminators, and `scale_groups` into how many groups their inner convolutions are divided.
    """

    upsampling: tuple[int, ...] = (8, 8, 2, 2)
    upsampling_kernels: tuple[int, ...] = (16, 16, 4, 4)
    width: int = 512
    kernels: tuple[int, ...] = (3, 7, 11)
    residual: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
    is_doubled: bool = True
    period_widths: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    scale_widths: tuple[int, ...] = (128, 128, 256, 512, 1024, 1024, 1024)
    scale_groups: tuple[int, ...] = (1, 4, 16, 16, 16, 16, 1)

    def __post_init__(self) -> None:
        if torch.Size(self.upsampling).numel() != HOP_SAMPLES:
            raise ValueError(f"the steps of upsampling must make {HOP_SAMPLES}, found {self.upsampling}")


_V3_RESIDUAL = ((1, 2), (2, 6), (3, 12))
SHAPES: Mapping[str, VocoderShape] = {
    "V1": VocoderShape(),
    "V2": VocoderShape(width=128),
    "V3": VocoderShape((8, 8, 4), (16, 16, 8), 256, (3, 5, 7), _V3_RESIDUAL, is_doubled=False),
    "small": VocoderShape(
        (8, 8, 4),
        (16, 16, 8),
        128,
        (3, 5, 7),
        _V3_RESIDUAL,
        is_doubled=False,
        period_widths=(8, 16, 32, 64, 64),
        scale_widths=(16, 16, 32, 64, 64, 64, 64),
        scale_groups=(1, 4, 4, 4, 4, 4, 1),
    ),
}
"""V1 to V3 as published (config_v1.json to config_v3.json); `small`, which is ours, trains on two CPU cores."""


class _ResidualBlock(nn.Module):
    """Convolutions of growing dilation, each added to what it was given; `ResBlock2` of the published code."""

    def __init__(self, width: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_dilated(width, kernel, dilation) for dilation in dilations)

    def forward(self, values: Tensor) -> Tensor:
        """Return a tensor of the shape of `values` (batch, width, samples)."""
        for convolution in self.convs:
            values = convolution(F.leaky_relu(values, _SLOPE)) + values
        return values


class _DoubledResidualBlock(nn.Module):
    """As `_ResidualBlock`, each dilated convolution followed by a plain one; `ResBlock1` of the published code."""

    def __init__(self, width: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_dilated(width, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_dilated(width, kernel, 1) for _ in dilations)

    def forward(self, values: Tensor) -> Tensor:
        """Return a tensor of the shape of `values` (batch, width, samples)."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            values = plain(F.leaky_relu(dilated(F.leaky_relu(values, _SLOPE)), _SLOPE)) + values
        return values


def _dilated(width: int, kernel: int, dilation: int) -> nn.Module:
    return WeightNormedConv1d(width, width, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)


class Generator(nn.Module):
    """From mel spectrograms of `HifiGanMel` to waveforms."""

    def __init__(self, shape: VocoderShape) -> None:
        super().__init__()
        block = _DoubledResidualBlock if shape.is_doubled else _ResidualBlock
        widths = [shape.width // 2**depth for depth in range(len(shape.upsampling) + 1)]
        self.conv_pre = WeightNormedConv1d(NUM_BANDS, shape.width, 7, padding=3)
        self.ups = nn.ModuleList(
            WeightNormedConvTranspose1d(inputs, outputs, kernel, step)
            for inputs, outputs, kernel, step in zip(
                widths[:-1], widths[1:], shape.upsampling_kernels, shape.upsampling, strict=True
            )
        )
        self.resblocks = nn.ModuleList(
            block(width, kernel, dilations)
            for width in widths[1:]
            for kernel, dilations in zip(shape.kernels, shape.residual, strict=True)
        )
        self.conv_post = WeightNormedConv1d(widths[-1], 1, 7, padding=3)
        self._blocks_a_step = len(shape.kernels)

    def forward(self, mel: Tensor) -> Tensor:
        """Return waveforms (batch, 256 * frames) in (-1, 1) of `mel` (batch, 80, frames).

        Under autocast the last layer stays in float32: a waveform needs more digits than half of them.
        """
        values = self.conv_pre(mel)
        for number, upsampling in enumerate(self.ups):
            values = upsampling(F.leaky_relu(values, _SLOPE))
            first = number * self._blocks_a_step
            total = self.resblocks[first](values)
            for block in self.resblocks[first + 1 : first + self._blocks_a_step]:
                total = total + block(values)
            values = total / self._blocks_a_step
        with torch.autocast(values.device.type, enabled=False):
            values = F.leaky_relu(_precise(values))
            return torch.tanh(self.conv_post(values)).squeeze(1)


class _PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample at once: a waveform folded into columns of `period`."""

    def __init__(self, period: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        strides = (3,) * (len(widths) - 1) + (1,)
        pairs = zip((1, *widths[:-1]), widths, strides, strict=True)
        self.convs = nn.ModuleList(WeightNormedConv2d(inputs, outputs, 5, stride) for inputs, outputs, stride in pairs)
        self.conv_post = WeightNormedConv2d(widths[-1], 1, 3, 1)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what is said of each place in `waveform` (batch, 1, samples), and the maps on the way there."""
        missing = -waveform.shape[-1] % self.period
        if missing:
            waveform = mirrored(waveform, 0, missing)
        return _judged(self.convs, self.conv_post, waveform.reshape(*waveform.shape[:2], -1, self.period))


class _ScaleDiscriminator(nn.Module):
    """Looks at a waveform as it is, with kernels that grow and strides."""

    def __init__(self, widths: Sequence[int], groups: Sequence[int], norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        kernels, strides = (15, 41, 41, 41, 41, 41, 5), (1, 2, 2, 4, 4, 1, 1)
        rows = zip((1, *widths[:-1]), widths, kernels, strides, groups, strict=True)
        self.convs = nn.ModuleList(
            norm(inputs, outputs, kernel, stride=stride, groups=number, padding=kernel // 2)
            for inputs, outputs, kernel, stride, number in rows
        )
        self.conv_post = norm(widths[-1], 1, 3, padding=1)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what is said of each place in `waveform` (batch, 1, samples), and the maps on the way there."""
        return _judged(self.convs, self.conv_post, waveform)


def _judged(convolutions: nn.ModuleList, last: nn.Module, values: Tensor) -> tuple[Tensor, list[Tensor]]:
    maps = []
    for convolution in convolutions:
        values = F.leaky_relu(convolution(values), _SLOPE)
        maps.append(values)
    values = last(values)
    return values.flatten(1), [*maps, values]


class MultiPeriodDiscriminator(nn.Module):
    """Five discriminators, of the periods 2, 3, 5, 7 and 11."""

    def __init__(self, shape: VocoderShape) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(_PeriodDiscriminator(period, shape.period_widths) for period in _PERIODS)

    def forward(self, real: Tensor, made: Tensor) -> tuple[Judged, Judged]:
        """Return what is said of real waveforms and of made ones, both (batch, samples)."""
        pairs = [(one(real.unsqueeze(1)), one(made.unsqueeze(1))) for one in self.discriminators]
        return _sorted_out(pairs)


class MultiScaleDiscriminator(nn.Module):
    """Three discriminators: of the waveform, and of it at half and a quarter of the rate.

    The first one's norm is spectral. Its vectors change at each forward pass in training mode, so that the order here,
    real and then made, is a part of what is published.
    """

    def __init__(self, shape: VocoderShape) -> None:
        super().__init__()
        norms = (SpectralNormedConv1d, WeightNormedConv1d, WeightNormedConv1d)
        self.discriminators = nn.ModuleList(
            _ScaleDiscriminator(shape.scale_widths, shape.scale_groups, norm) for norm in norms
        )

    def forward(self, real: Tensor, made: Tensor) -> tuple[Judged, Judged]:
        """Return what is said of real waveforms and of made ones, both (batch, samples)."""
        real, made, pairs = real.unsqueeze(1), made.unsqueeze(1), []
        for number, discriminator in enumerate(self.discriminators):
            if number:
                real, made = (F.avg_pool1d(waveform, 4, 2, padding=2) for waveform in (real, made))
            pairs.append((discriminator(real), discriminator(made)))
        return _sorted_out(pairs)


def _sorted_out(
    pairs: Sequence[tuple[tuple[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]],
) -> tuple[Judged, Judged]:
    reals, mades = [real for real, _ in pairs], [made for _, made in pairs]
    first, second = (([said for said, _ in side], [maps for _, maps in side]) for side in (reals, mades))
    return first, second


def _precise(values: Tensor) -> Tensor:
    """Return values of autocast in float32, all others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def discriminator_loss(real: Judged, made: Judged) -> Tensor:
    """Return the least-squares loss of discriminators, which say 1 of real waveforms and 0 of made ones."""
    pairs = zip(map(_precise, real[0]), map(_precise, made[0]), strict=True)
    return torch.stack([(1 - of_real).square().mean() + of_made.square().mean() for of_real, of_made in pairs]).sum()


def adversarial_loss(made: Judged) -> Tensor:
    """Return the least-squares loss of a generator whose waveforms discriminators shall take for real."""
    return torch.stack([(1 - _precise(said)).square().mean() for said in made[0]]).sum()


def feature_loss(real: Judged, made: Judged) -> Tensor:
    """Return twice the sum over all maps of the mean absolute difference between real and made ones."""
    pairs = zip(real[1], made[1], strict=True)
    distances = [
        (_precise(of_real) - _precise(of_made)).abs().mean()
        for real_maps, made_maps in pairs
        for of_real, of_made in zip(real_maps, made_maps, strict=True)
    ]
    return 2 * torch.stack(distances).sum()
