"""The mel spectrogram that a HiFi-GAN vocoder hears and is judged by.

As published (jik876/hifi-gan meldataset.py, `mel_spectrogram`), at 16 kHz: 80 bands of Slaney's scale and area from 0
to 8 kHz, as `librosa.filters.mel` makes them, of the magnitude of Hann windows of 1,024 samples each 256.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

NUM_BANDS = 80
HOP_SAMPLES = 256
WINDOW_SAMPLES = 1024
_LEAST_MAGNITUDE = 1e-5
_UNDER_THE_ROOT = 1e-9
_LINEAR_HZ, _LINEAR_STEP_HZ, _LOG_STEP = 1000.0, 200.0 / 3, np.log(6.4) / 27


class HifiGanMel(nn.Module):
    """Natural logarithms of the magnitude in 80 mel bands. Nothing is learned, and nothing is in the state_dict."""

    filters: Tensor
    window: Tensor

    def __init__(self, sample_rate_hz: int = 16_000, highest_hz: float = 8_000.0) -> None:
        super().__init__()
        filters = slaney_filters(sample_rate_hz, WINDOW_SAMPLES, NUM_BANDS, highest_hz)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return (batch, 80, samples // 256) for `waveform` (batch, samples), at least 512 of them.

        The first frame's window begins 384 samples before the first sample, which are mirrored there, as at the end.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            beyond = (WINDOW_SAMPLES - HOP_SAMPLES) // 2
            padded = mirrored(waveform.float(), beyond, beyond)
            spectrum = torch.stft(
                padded, WINDOW_SAMPLES, HOP_SAMPLES, WINDOW_SAMPLES, self.window, center=False, return_complex=True
            )
            magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + _UNDER_THE_ROOT)
            return torch.log(torch.clamp(self.filters @ magnitude, min=_LEAST_MAGNITUDE))


def mirrored(waveform: Tensor, before: int, after: int) -> Tensor:
    """Return `waveform` (..., samples) with so many samples before and after it, those within mirrored at its ends.

    As torch's reflecting pad, whose gradient has no deterministic form on CUDA; this one has.
    """
    parts = [waveform[..., 1 : before + 1].flip(-1), waveform]
    return torch.cat([*parts, waveform[..., -after - 1 : -1].flip(-1)] if after else parts, dim=-1)


def slaney_filters(sample_rate_hz: int, fft_samples: int, num_bands: int, highest_hz: float) -> NDArray[np.float32]:
    """Return (bands, fft_samples // 2 + 1) float32: triangles of equal width in mel, each of area 2 / its width in Hz.

    The mel scale is linear up to 1 kHz and logarithmic above (Slaney's Auditory Toolbox), as `librosa.filters.mel` has
    it where nothing else is asked for.
    """
    mels = np.linspace(0.0, float(_mel_of(np.array(highest_hz))), num_bands + 2)
    edges = _hz_of(mels)[:, np.newaxis]
    frequencies = np.linspace(0.0, sample_rate_hz / 2, fft_samples // 2 + 1)
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    areas = 2.0 / (edges[2:] - edges[:-2])
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)) * areas, dtype=np.float32)


def _mel_of(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _LINEAR_HZ / _LINEAR_STEP_HZ + np.log(np.maximum(hz, _LINEAR_HZ) / _LINEAR_HZ) / _LOG_STEP
    return np.where(hz < _LINEAR_HZ, hz / _LINEAR_STEP_HZ, above)


def _hz_of(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    knee = _LINEAR_HZ / _LINEAR_STEP_HZ
    return np.where(mel < knee, mel * _LINEAR_STEP_HZ, _LINEAR_HZ * np.exp(_LOG_STEP * (np.maximum(mel, knee) - knee)))
