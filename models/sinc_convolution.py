"""Fixed band-pass filters over the raw waveform: the first layer of RawNet2 and of AASIST."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SincConvolution(nn.Module):
    """Filters a waveform with `num_filters` windowed ideal band-passes side by side on the mel scale, from 0 to 8 kHz.

    Nothing is learned, and nothing is in the state_dict. `length` taps each, made odd. Source: clovaai/aasist
    models/AASIST.py (CONV), after Ravanelli and Bengio 2018, arXiv 1808.00158.
    """

    filters: Tensor

    def __init__(self, num_filters: int, length: int, sample_rate_hz: int = 16_000) -> None:
        super().__init__()
        edges = mel_edges_hz(num_filters, sample_rate_hz / 2) * 2 / sample_rate_hz
        taps = np.arange(-(length // 2), length // 2 + 1)
        low_passes = edges[:, np.newaxis] * np.sinc(edges[:, np.newaxis] * taps)
        band_passes = np.diff(low_passes, axis=0) * np.hamming(taps.size)
        self.register_buffer("filters", torch.tensor(band_passes[:, np.newaxis], dtype=torch.float32), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return (batch, filters, samples - taps + 1) for `waveform` (batch, samples)."""
        return F.conv1d(waveform.unsqueeze(1), self.filters)


def mel_edges_hz(num_bands: int, highest_hz: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the `num_bands` + 1 edges of bands equally wide on the mel scale, 2595 log10(1 + f / 700), from 0 Hz.

    >>> mel_edges_hz(2, 8000).round(-1)
    array([   0., 1770., 8000.])
    """
    highest_mel = 2595 * np.log10(1 + highest_hz / 700)
    return np.asarray(700 * (10 ** (np.linspace(0, highest_mel, num_bands + 1) / 2595) - 1), dtype=np.float64)
