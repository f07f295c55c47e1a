"""The mel filters of a vocoder's spectrogram: Slaney's scale and area, as librosa has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LINEAR_HZ, _LINEAR_STEP_HZ, _LOG_STEP = 1000.0, 200.0 / 3, np.log(6.4) / 27


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
