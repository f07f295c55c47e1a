"""LFCC and log-mel spectra: against scipy, against formulas worked by hand, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import torch

from models.spectral_features import (
    LEAST_POWER,
    Lfcc,
    LogMel,
    cosine_transform,
    differences,
    emphasised,
    power_spectrum,
    triangles,
)


def noise(samples: int = 3200, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(1)) / 10


def scipy_powers(waveform: np.ndarray, window: np.ndarray, fft_samples: int) -> np.ndarray:
    """Return |STFT|^2 (frames, bins) by scipy: each window in the middle of its transform, every 160 samples."""
    margin = (fft_samples - window.size) // 2
    centred = np.pad(window, (margin, fft_samples - window.size - margin))
    transform = scipy.signal.ShortTimeFFT(centred, hop=160, fs=16_000, mfft=fft_samples)
    frames = 1 + waveform.size // 160
    return (np.abs(transform.stft(waveform, p0=0, p1=frames)) ** 2).T


@pytest.mark.parametrize(("window_samples", "fft_samples", "kind"), [(320, 1024, "hamming"), (400, 512, "hann")])
def test_the_power_spectrum_is_that_of_scipy(window_samples: int, fft_samples: int, kind: str) -> None:
    window = scipy.signal.get_window(kind, window_samples)
    found = power_spectrum(noise(), torch.tensor(window, dtype=torch.float32), fft_samples)[0]
    expected = scipy_powers(noise()[0].double().numpy(), window, fft_samples)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_the_windows_are_those_of_scipy() -> None:
    np.testing.assert_allclose(Lfcc().window.numpy(), scipy.signal.get_window("hamming", 320), atol=1e-6)
    np.testing.assert_allclose(LogMel().window.numpy(), scipy.signal.get_window("hann", 400), atol=1e-6)


def test_the_cosine_transform_is_that_of_scipy_and_keeps_lengths() -> None:
    rows = np.random.default_rng(1).standard_normal((3, 20))
    np.testing.assert_allclose(rows @ cosine_transform(20), scipy.fft.dct(rows, norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(cosine_transform(20).T @ cosine_transform(20), np.eye(20), atol=1e-12)


def test_lfcc_is_its_formula() -> None:
    waveform = noise()[0].double().numpy()
    sharpened = np.append(waveform[0], waveform[1:] - 0.97 * waveform[:-1])
    powers = scipy_powers(sharpened, scipy.signal.get_window("hamming", 320), 1024)[:, :256]
    bands = np.log10(powers @ triangles(np.linspace(0, 255 * 15.625, 22), 1024)[:256] + LEAST_POWER)
    cepstra = scipy.fft.dct(bands, norm="ortho")
    cepstra[:, 0] = np.log10(powers.sum(axis=1) / 1024 + LEAST_POWER)
    slopes = np.array([cepstra[min(t + 1, 20)] - cepstra[max(t - 1, 0)] for t in range(21)])
    curves = np.array([slopes[min(t + 1, 20)] - slopes[max(t - 1, 0)] for t in range(21)])
    found = Lfcc()(noise())[0].numpy()
    np.testing.assert_allclose(found, np.hstack([cepstra, slopes, curves]), atol=2e-3)


def test_emphasis_leaves_the_first_sample() -> None:
    found = emphasised(torch.tensor([[1.0, 1.0, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.03, 1.03]]))


def test_differences_stop_at_the_ends() -> None:
    found = differences(torch.tensor([[[1.0], [2.0], [4.0], [8.0]]]))
    assert found.flatten().tolist() == [1.0, 3.0, 6.0, 4.0]


def test_neighbouring_triangles_share_each_frequency() -> None:
    filters = triangles(np.linspace(0, 8000, 22), 1024)
    between_centres = slice(int(np.ceil(8000 / 21 / 15.625)), int(8000 * 20 / 21 / 15.625))
    np.testing.assert_allclose(filters.sum(axis=1)[between_centres], 1)
    assert (filters >= 0).all()


def test_every_mel_band_hears_something() -> None:
    assert LogMel().filters.max(dim=0).values.min() > 0


@pytest.mark.parametrize("frequency_hz", [300, 1000, 5000])
def test_a_tone_is_loudest_in_its_mel_band(frequency_hz: int) -> None:
    tone = torch.sin(2 * torch.pi * frequency_hz * torch.arange(16_000) / 16_000).unsqueeze(0)
    loudest = LogMel()(tone)[0, 50].argmax().item()
    mel_of_tone = 2595 * np.log10(1 + frequency_hz / 700)
    mel_of_centres = (np.arange(80) + 1) * 2595 * np.log10(1 + 8000 / 700) / 81
    assert abs(mel_of_centres[int(loudest)] - mel_of_tone) < 40  # 35 mel from band to band


def test_lfcc_does_not_hear_what_lies_above_4_khz() -> None:
    high = torch.tensor(scipy.signal.firwin(255, 5000, pass_zero=False, fs=16_000), dtype=torch.float32)
    hiss = torch.nn.functional.conv1d(noise(16_000 + 254).flip(1).unsqueeze(0), high.view(1, 1, -1)).squeeze(0)
    before, after = Lfcc()(noise(16_000))[0, 10:-10], Lfcc()(noise(16_000) + hiss)[0, 10:-10]
    assert (after - before)[:, :20].abs().max() < 0.1
    assert LogMel()(noise(16_000) + hiss)[0, :, 60:].mean() > LogMel()(noise(16_000))[0, :, 60:].mean() + 0.1


def test_the_level_does_not_count_in_log_mel_spectra_and_their_scale_is_one() -> None:
    found = LogMel()(noise(16_000))
    torch.testing.assert_close(LogMel()(noise(16_000) * 4), found, atol=2e-3, rtol=0)
    assert found.mean().item() == pytest.approx(0, abs=1e-5)
    assert found.std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("features", [Lfcc(), LogMel()], ids=["lfcc", "log-mel"])
@pytest.mark.parametrize(("samples", "frames"), [(159, 1), (160, 2), (64_600, 404)])
def test_a_frame_begins_every_10_ms(features: torch.nn.Module, samples: int, frames: int) -> None:
    assert features(noise(samples)).shape[1] == frames


@pytest.mark.parametrize("features", [Lfcc(), LogMel()], ids=["lfcc", "log-mel"])
def test_features_are_fixed_and_the_same_in_bfloat16_training(features: torch.nn.Module) -> None:
    assert list(features.state_dict()) == list(features.parameters()) == []
    expected = features(noise())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(features(noise()), expected)
    assert features(torch.zeros(1, 3200)).isfinite().all()
