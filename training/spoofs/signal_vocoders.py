"""Vocoders without weights: they take speech apart at 16 kHz and put it together again with something lost.

Each takes float64 `(samples,)`, `LEAST_SAMPLES` or more, and a generator for what it draws, and returns as many
samples.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.signal import istft, stft

from utils.audio.mel_filters import slaney_filters
from utils.audio.waveforms import SAMPLE_RATE_HZ
from utils.corpora.demo_vocoders import lpc_pulses

Signal = npt.NDArray[np.float64]
SignalVocoder = Callable[[Signal, np.random.Generator], Signal]
LEAST_SAMPLES = 2048

_BANDS, _WINDOW_SAMPLES, _HOP_SAMPLES = 80, 1024, 256  # those that HiFi-GAN hears (models/log_mel.py)
_ROUNDS_OF_BANDS, _ROUNDS_OF_PHASES, _MOMENTUM = 30, 32, 0.99
_PEAKS, _FRAME_SAMPLES, _FFT_SAMPLES, _STEP_SAMPLES = 60, 512, 1024, 160
_TINY = 1e-12


def griffin_lim(speech: Signal, generator: np.random.Generator) -> Signal:
    """80 mel bands without phases, then 32 rounds of the fast Griffin-Lim algorithm from random ones.

    Magnitudes are those that have these bands (Lee and Seung, NIPS 2000, 30 rounds). The algorithm is that of
    Perraudin, Balazs and Sondergaard (WASPAA 2013) with momentum 0.99, as `librosa.griffinlim` has it.
    """
    filters = _mel_filters()
    magnitude = _with_bands(filters, filters @ np.abs(_spectrum(speech)))
    phase = np.exp(2j * np.pi * generator.random(magnitude.shape))
    before = np.zeros_like(phase)
    for _ in range(_ROUNDS_OF_PHASES):
        rebuilt = _spectrum(_signal(magnitude * phase, speech.size))
        phase = rebuilt - _MOMENTUM / (1 + _MOMENTUM) * before
        phase /= np.maximum(np.abs(phase), _TINY)
        before = rebuilt
    return _signal(magnitude * phase, speech.size)


def sinusoidal(speech: Signal, generator: np.random.Generator) -> Signal:  # noqa: ARG001 - nothing is drawn
    """The 60 highest peaks of the spectrum every 10 ms, each a sine of that frequency, amplitude and phase.

    Analysis of McAulay and Quatieri (IEEE Trans. ASSP 34, 1986), with peaks interpolated by a parabola through their
    logarithms; the frames are overlapped and added as by George and Smith (IEEE Trans. SAP 5, 1997).
    """
    window = np.hanning(_FRAME_SAMPLES + 1)[:-1]
    count = -(-speech.size // _STEP_SAMPLES) + 1
    half = _FRAME_SAMPLES // 2
    padded = np.pad(speech, (half, half + count * _STEP_SAMPLES - speech.size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME_SAMPLES)[::_STEP_SAMPLES][:count] * window
    centred = np.roll(np.pad(frames, ((0, 0), (0, _FFT_SAMPLES - _FRAME_SAMPLES))), -half, axis=1)  # phases are there
    spectrum = np.fft.rfft(centred)
    level = np.log(np.abs(spectrum) + _TINY)
    inner = level[:, 1:-1]
    is_peak = (inner > level[:, :-2]) & (inner >= level[:, 2:])
    ranked = np.argsort(np.where(is_peak, -inner, np.inf), axis=1, kind="stable")[:, :_PEAKS]
    rows = np.arange(count)
    time = np.arange(-_STEP_SAMPLES, _STEP_SAMPLES)
    made = np.zeros((count, time.size))
    for column in ranked.T:
        at = column + 1
        left, top, right = level[rows, at - 1], level[rows, at], level[rows, at + 1]
        bend = left - 2 * top + right
        shift = np.clip(0.5 * (left - right) / np.minimum(bend, -_TINY), -0.5, 0.5)
        amplitude = 2 / window.sum() * np.exp(top - 0.25 * (left - right) * shift) * is_peak[rows, column]
        step = 2 * np.pi * (at + shift) / _FFT_SAMPLES
        made += amplitude[:, None] * np.cos(step[:, None] * time + np.angle(spectrum[rows, at])[:, None])
    made *= np.hanning(time.size + 1)[:-1]
    output = np.zeros((count + 1) * _STEP_SAMPLES)
    output[: count * _STEP_SAMPLES] += made[:, :_STEP_SAMPLES].reshape(-1)
    output[_STEP_SAMPLES:] += made[:, _STEP_SAMPLES:].reshape(-1)
    return output[_STEP_SAMPLES:][: speech.size]


def world(speech: Signal, generator: np.random.Generator) -> Signal:  # noqa: ARG001 - WORLD draws the same noise always
    """F0, spectral envelope and aperiodicity every 5 ms, by WORLD (Morise et al., IEICE Trans. E99-D, 2016)."""
    package = importlib.import_module("pyworld")
    f0_hz, envelope, aperiodicity = package.wav2world(speech, SAMPLE_RATE_HZ)
    made: Signal = package.synthesize(f0_hz, envelope, aperiodicity, SAMPLE_RATE_HZ)
    return np.pad(made[: speech.size], (0, max(0, speech.size - made.size)))


SIGNAL_VOCODERS: Mapping[str, SignalVocoder] = {
    "griffin_lim": griffin_lim,
    "world": world,
    "lpc": lpc_pulses,
    "sinusoidal": sinusoidal,
}
"""By the names of --vocoders; `lpc` is the one of the demo corpus."""


@functools.cache
def _mel_filters() -> Signal:
    return slaney_filters(SAMPLE_RATE_HZ, _WINDOW_SAMPLES, _BANDS, SAMPLE_RATE_HZ / 2).astype(np.float64)


def _with_bands(filters: Signal, bands: Signal) -> Signal:
    """Return magnitudes (bins, frames), none below 0, whose bands are nearly these: least squares."""
    wanted = filters.T @ bands
    found = wanted.copy()
    for _ in range(_ROUNDS_OF_BANDS):
        found *= wanted / np.maximum(filters.T @ (filters @ found), _TINY)
    return found


def _spectrum(signal: Signal) -> npt.NDArray[np.complex128]:
    found = stft(signal, nperseg=_WINDOW_SAMPLES, noverlap=_WINDOW_SAMPLES - _HOP_SAMPLES)[2]
    return np.asarray(found, dtype=np.complex128)


def _signal(spectrum: npt.NDArray[np.complex128], num_samples: int) -> Signal:
    found = istft(spectrum, nperseg=_WINDOW_SAMPLES, noverlap=_WINDOW_SAMPLES - _HOP_SAMPLES)[1]
    return np.asarray(found[:num_samples], dtype=np.float64)
