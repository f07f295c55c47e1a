"""The networks of HiFi-GAN and what they hear, beside torch's own norms and figures worked by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.hifigan import (
    SHAPES,
    Generator,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    VocoderShape,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from models.log_mel import HifiGanMel, mirrored
from models.names import VOCODER_SIZES
from models.normed_convolutions import SpectralNormedConv1d, WeightNormedConv1d
from utils.audio.mel_filters import slaney_filters

# Tensors and values as the published code (jik876/hifi-gan models.py) has them, which weight norm's lengths add to.
PUBLISHED = [("V1", 234, 13_936_130), ("V2", 234, 928_514), ("V3", 69, 1_464_322)]


def parameters(network: nn.Module) -> int:
    return sum(one.numel() for one in network.parameters())


@pytest.mark.parametrize(("size", "tensors", "values"), PUBLISHED)
def test_each_size_has_as_many_weights_as_published(size: str, tensors: int, values: int) -> None:
    generator = Generator(SHAPES[size])
    assert (len(generator.state_dict()), parameters(generator)) == (tensors, values)


def test_the_discriminators_have_as_many_weights_as_published() -> None:
    assert len({(shape.period_widths, shape.scale_widths) for size, shape in SHAPES.items() if size != "small"}) == 1
    periods, scales = MultiPeriodDiscriminator(SHAPES["V3"]), MultiScaleDiscriminator(SHAPES["V3"])
    assert (len(periods.state_dict()), parameters(periods)) == (90, 41_105_770)
    assert (len(scales.state_dict()), parameters(scales)) == (80, 29_618_821)


def test_the_sizes_are_those_of_the_flag() -> None:
    assert tuple(SHAPES) == VOCODER_SIZES


def test_weights_have_the_names_of_public_files() -> None:
    names = set(Generator(SHAPES["small"]).state_dict())
    assert {"conv_pre.weight_g", "conv_pre.weight_v", "conv_pre.bias", "ups.0.weight_g"} <= names
    assert {"resblocks.8.convs.1.weight_v", "conv_post.weight_g"} <= names
    scales = set(MultiScaleDiscriminator(SHAPES["small"]).state_dict())
    first = {f"discriminators.0.conv_post.{name}" for name in ("weight_orig", "weight_u", "weight_v", "bias")}
    assert first | {"discriminators.1.convs.6.weight_g"} <= scales


def test_a_waveform_has_256_samples_a_frame() -> None:
    assert Generator(SHAPES["small"])(torch.zeros(2, 80, 5)).shape == (2, 1280)
    with pytest.raises(ValueError, match="must make 256, found"):
        VocoderShape(upsampling=(8, 8, 2))


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [(WeightNormedConv1d, nn.utils.weight_norm), (SpectralNormedConv1d, nn.utils.spectral_norm)],
)
def test_a_norm_is_that_of_torch_in_outputs_gradients_and_buffers_call_after_call(
    ours: type[nn.Module], torchs: object
) -> None:
    mine = ours(4, 6, 3, padding=1, groups=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = torchs(nn.Conv1d(4, 6, 3, padding=1, groups=2))  # type: ignore[operator]
    theirs.load_state_dict(mine.state_dict(), strict=True)
    first, second = torch.randn(2, 2, 4, 9)
    for network in (mine, theirs):  # two passes before one goes back, as real and made waveforms do
        (network(first).sum() + network(second).square().sum()).backward()
    assert all(torch.equal(mine.state_dict()[name], value) for name, value in theirs.state_dict().items())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(mine.get_parameter(name).grad, parameter.grad)
    torch.testing.assert_close(mine.eval()(first), theirs.eval()(first))


def test_mirroring_is_torchs_reflecting_pad() -> None:
    waveform = torch.randn(2, 10, requires_grad=True)
    for before, after in ((3, 4), (0, 2), (9, 0)):
        padded = F.pad(waveform.unsqueeze(1), (before, after), "reflect").squeeze(1)
        assert torch.equal(mirrored(waveform, before, after), padded)


def test_mel_filters_are_of_one_area_linear_below_1_khz_and_logarithmic_above() -> None:
    filters = slaney_filters(16_000, 1024, 80, 8_000).astype(np.float64)
    assert filters.shape == (80, 513)
    assert (filters.sum(axis=1) * 16_000 / 1024)[40:] == pytest.approx(1, abs=0.02)
    peaks = filters.argmax(axis=1) * 16_000 / 1024
    # 8 kHz is mel 15 + 27 ln 8 / ln 6.4 = 45.25 (Slaney's), so that bands lie 45.25 / 81 mel of 66.7 Hz apart.
    assert peaks[[0, 9, 19]] == pytest.approx([37.2, 372.4, 744.9], abs=8)
    assert peaks[-1] / peaks[-2] == pytest.approx(np.exp(np.log(6.4) / 27 * 45.2453 / 81), abs=0.005)


def test_a_tone_is_heard_in_its_band_and_silence_is_the_floor() -> None:
    mel = HifiGanMel()
    time = torch.arange(8192) / 16_000
    bands = mel(torch.stack([0.5 * torch.sin(2 * torch.pi * 1000 * time), torch.zeros(8192)]))
    assert bands.shape == (2, 80, 32)
    centre = 15 / (45.2453 / 81) - 1  # 1 kHz is mel 15, and band n has its peak at (n + 1) * 45.2453 / 81
    assert bands[0, :, 16].argmax().item() == pytest.approx(centre, abs=0.6)
    # The root of 1e-9 in each bin, times the filter's sum, is above the floor of 1e-5 in some bands.
    assert bands[1].max().item() < np.log(1e-5) + 1
    assert bands[1].min().item() == pytest.approx(np.log(1e-5), abs=1e-3)


def judged(said: float, *maps: float) -> tuple[list[Tensor], list[list[Tensor]]]:
    return [torch.full((2, 3), said)], [[torch.full((2, 1), value) for value in maps]]


def test_losses_are_the_published_ones() -> None:
    real, made = judged(0.75, 1.0, 2.0), judged(0.5, 1.5, 0.0)
    assert discriminator_loss(real, made).item() == pytest.approx(0.25**2 + 0.5**2)
    assert adversarial_loss(made).item() == pytest.approx(0.5**2)
    assert feature_loss(real, made).item() == pytest.approx(2 * (0.5 + 2.0))


def test_discriminators_of_every_kind_give_a_gradient_to_what_was_made() -> None:
    made = torch.randn(1, 2048, requires_grad=True)
    for kind, count in ((MultiPeriodDiscriminator, 5), (MultiScaleDiscriminator, 3)):
        real, fake = kind(SHAPES["small"])(torch.randn(1, 2048), made)
        assert len(fake[0]) == len(real[1]) == count
        (gradient,) = torch.autograd.grad(adversarial_loss(fake) + feature_loss(real, fake), made)
        assert gradient.abs().sum() > 0
