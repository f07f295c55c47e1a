"""What classical detectors see of a waveform: linear-frequency cepstra (LFCC), and logarithmic mel spectra.

Both are fixed: nothing is learned, nothing is in the state_dict, and they are computed in fp32 whatever --precision
says, since a logarithm of small powers does not survive bfloat16. A frame is a row, its centre at a multiple of 10 ms.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.sinc_convolution import mel_edges_hz

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160
LEAST_POWER = torch.finfo(torch.float32).eps


class Lfcc(nn.Module):
    """Linear-frequency cepstral coefficients of windows of 20 ms, with first and second differences over time.

    Only the 256 lowest of 513 frequencies are used, up to 4 kHz, which suits telephone speech: twenty triangular
    filters, log10, an orthonormal DCT, and the log10 of their power in place of the first coefficient. Source:
    asvspoof-challenge/2021 LA/Baseline-LFCC-LCNN (model.py and sandbox/util_frontend.py).
    """

    width = 60
    filters: Tensor
    cosines: Tensor
    window: Tensor

    def __init__(self, num_filters: int = 20, num_bins: int = 256, window_samples: int = 320) -> None:
        super().__init__()
        self.fft_samples = 1024
        self.num_bins = num_bins
        highest_hz = (num_bins - 1) * SAMPLE_RATE_HZ / self.fft_samples
        _keep(self, "filters", triangles(np.linspace(0, highest_hz, num_filters + 2), self.fft_samples)[:num_bins])
        _keep(self, "cosines", cosine_transform(num_filters))
        _keep(self, "window", np.hamming(window_samples + 1)[:-1])

    def forward(self, waveform: Tensor) -> Tensor:
        """Return (batch, frames, 60) for `waveform` (batch, samples): 1 + samples // 160 frames."""
        with torch.autocast(waveform.device.type, enabled=False):
            powers = power_spectrum(emphasised(waveform.float()), self.window, self.fft_samples)[..., : self.num_bins]
            bands = (powers @ self.filters + LEAST_POWER).log10()
            energy = (powers.sum(dim=-1, keepdim=True) / self.fft_samples + LEAST_POWER).log10()
            cepstra = torch.cat([energy, (bands @ self.cosines)[..., 1:]], dim=-1)
            slopes = differences(cepstra)
            return torch.cat([cepstra, slopes, differences(slopes)], dim=-1)


class LogMel(nn.Module):
    """Natural logarithms of the power in 80 mel bands from 0 to 8 kHz, of Hann windows of 25 ms.

    Each utterance is brought to zero mean and unit variance over all of its bands and frames, so that its level does
    not count and the tilt of its spectrum does. The bands are triangles on the mel scale of `mel_edges_hz`.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, num_bands: int = 80, window_samples: int = 400) -> None:
        super().__init__()
        self.fft_samples = 512
        _keep(self, "filters", triangles(mel_edges_hz(num_bands + 1, SAMPLE_RATE_HZ / 2), self.fft_samples))
        _keep(self, "window", np.hanning(window_samples + 1)[:-1])

    def forward(self, waveform: Tensor) -> Tensor:
        """Return (batch, frames, bands) for `waveform` (batch, samples): 1 + samples // 160 frames."""
        with torch.autocast(waveform.device.type, enabled=False):
            powers = power_spectrum(waveform.float(), self.window, self.fft_samples)
            bands = (powers @ self.filters + LEAST_POWER).log()
            variance, mean = torch.var_mean(bands, dim=(1, 2), correction=0, keepdim=True)
            return (bands - mean) / torch.sqrt(variance + 1e-5)


def emphasised(waveform: Tensor) -> Tensor:
    """Return x[t] - 0.97 x[t-1] of `waveform` (batch, samples), the first sample as it is."""
    return torch.cat([waveform[:, :1], waveform[:, 1:] - 0.97 * waveform[:, :-1]], dim=1)


def power_spectrum(waveform: Tensor, window: Tensor, fft_samples: int) -> Tensor:
    """Return |STFT|^2 of `waveform` (batch, samples) as (batch, frames, fft_samples // 2 + 1), zeros around it."""
    spectrum = torch.stft(
        waveform, fft_samples, HOP_SAMPLES, window.numel(), window, pad_mode="constant", return_complex=True
    )
    return (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)


def differences(frames: Tensor) -> Tensor:
    """Return x[t+1] - x[t-1] of `frames` (batch, frames, width), the first and the last one standing in beyond them.

    >>> differences(torch.tensor([[[1.0], [2.0], [4.0]]])).flatten()
    tensor([1., 3., 2.])
    """
    padded = torch.cat([frames[:, :1], frames, frames[:, -1:]], dim=1)
    return padded[:, 2:] - padded[:, :-2]


def triangles(edges_hz: NDArray[np.float64], fft_samples: int) -> NDArray[np.float64]:
    """Return (fft_samples // 2 + 1, bands): band i rises from edge i to 1 at edge i + 1 and falls to edge i + 2.

    >>> triangles(np.array([0, 4000, 8000]), 8)[:, 0]
    array([0. , 0.5, 1. , 0.5, 0. ])
    """
    frequencies = np.linspace(0, SAMPLE_RATE_HZ / 2, fft_samples // 2 + 1)[:, np.newaxis]
    lower, centre, upper = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising, falling = (frequencies - lower) / (centre - lower), (upper - frequencies) / (upper - centre)
    return np.asarray(np.maximum(0, np.minimum(rising, falling)), dtype=np.float64)


def cosine_transform(size: int) -> NDArray[np.float64]:
    """Return the orthonormal DCT-II as a matrix for rows: `row @ cosine_transform(size)`.

    Column k of row n is sqrt(2 / size) cos(pi k (2 n + 1) / (2 size)), with sqrt(1 / size) where k is 0.
    """
    place, order = np.arange(size)[:, np.newaxis], np.arange(size)
    cosines = np.sqrt(2 / size) * np.cos(np.pi * order * (2 * place + 1) / (2 * size))
    cosines[:, 0] = np.sqrt(1 / size)
    return np.asarray(cosines, dtype=np.float64)


def _keep(module: nn.Module, name: str, values: NDArray[np.float64]) -> None:
    module.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
