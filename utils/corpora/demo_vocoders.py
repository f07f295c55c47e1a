"""Four simple vocoders: the spoof side of the demo corpus (see utils/corpora/demo_corpus.py).

Each takes speech `(samples,)` apart at 16 kHz and puts it together again with something lost that real vocoders lose
too: the phases, the irregularity of the voice, the fine structure of the spectrum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from utils.audio.waveforms import SAMPLE_RATE_HZ

Signal = npt.NDArray[np.float64]
Spectrum = npt.NDArray[np.complex128]
Vocoder = Callable[[Signal, np.random.Generator], Signal]

_WINDOW_SAMPLES = 512
_HOP_SAMPLES = 128
_LPC_ORDER = 16
_LPC_HOP_SAMPLES = 160
_VOICED_AUTOCORRELATION = 0.4


def lpc_pulses(speech: Signal, generator: np.random.Generator) -> Signal:
    """Linear prediction of order 16 every 10 ms, excited by equal pulses or, where unvoiced, by noise."""
    frames = _frames(speech, 2 * _LPC_HOP_SAMPLES, _LPC_HOP_SAMPLES)
    correlations = np.fft.irfft(np.abs(np.fft.rfft(frames, 512)) ** 2)[:, : _LPC_ORDER + 1]
    predictors, errors = _levinson(correlations)
    gains = np.sqrt(errors / (2 * _LPC_HOP_SAMPLES))
    excitation = _excitation(_f0_track(speech, _LPC_HOP_SAMPLES), _LPC_HOP_SAMPLES, generator)
    output = np.zeros(frames.shape[0] * _LPC_HOP_SAMPLES)
    state = np.zeros(_LPC_ORDER)
    for frame, predictor in enumerate(predictors):
        here = slice(frame * _LPC_HOP_SAMPLES, (frame + 1) * _LPC_HOP_SAMPLES)
        output[here], state = lfilter([gains[frame]], predictor, excitation[here], zi=state)
    return output[: speech.size]


def griffin_lim(speech: Signal, generator: np.random.Generator) -> Signal:
    """40 mel bands without phases, then two rounds of Griffin and Lim (IEEE Trans. ASSP 32, 1984) from random ones."""
    magnitude = np.abs(_to_spectrum(speech)) @ _mel_smoothing(40)
    spectrum = _with_phase(magnitude, 2 * np.pi * generator.random(magnitude.shape))
    for _ in range(2):
        guess = _to_spectrum(_to_signal(spectrum, speech.size))
        spectrum = _with_phase(magnitude, np.angle(guess))
    return _to_signal(spectrum, speech.size)


def mel_envelope(speech: Signal, generator: np.random.Generator) -> Signal:
    """The envelope of 20 mel bands on pulses below 4 kHz and noise above it; all noise where unvoiced."""
    smoothing = _mel_smoothing(20)
    f0_hz = _f0_track(speech, _HOP_SAMPLES)
    pulses = _to_spectrum(_excitation(f0_hz, _HOP_SAMPLES, generator)[: speech.size])
    noise = _to_spectrum(generator.standard_normal(speech.size))
    is_pulsed = np.fft.rfftfreq(_WINDOW_SAMPLES, 1 / SAMPLE_RATE_HZ) < 4000
    excitation = pulses * is_pulsed + noise * ~is_pulsed
    wanted = np.abs(_to_spectrum(speech)) @ smoothing
    given = np.maximum(np.abs(excitation) @ smoothing, 1e-9)
    return _to_signal(excitation * (wanted / given), speech.size)


def coarse_steps(speech: Signal, generator: np.random.Generator) -> Signal:
    """Rounds every time-frequency point: magnitudes to steps of 6 dB, phases to eighths of a turn, give or take two."""
    spectrum = _to_spectrum(speech)
    magnitude = 2.0 ** np.round(np.log2(np.maximum(np.abs(spectrum), 1e-6)))
    eighths = np.round(np.angle(spectrum) / (np.pi / 4)) + generator.integers(-2, 3, spectrum.shape)
    return _to_signal(_with_phase(magnitude, np.pi / 4 * eighths), speech.size)


def _with_phase(magnitude: npt.NDArray[np.floating], phase: npt.NDArray[np.floating]) -> Spectrum:
    return np.asarray(magnitude * np.exp(1j * phase), dtype=np.complex128)


def _frames(signal: Signal, size: int, hop: int) -> Signal:
    """Return windowed frames `(frames, size)`, one centred on each multiple of `hop`."""
    padded = np.pad(signal, (size // 2, size))
    count = -(-signal.size // hop) + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:count]
    return np.asarray(windows * _hann(size))


def _hann(size: int) -> Signal:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)


def _to_spectrum(signal: Signal) -> Spectrum:
    """Short-time Fourier transform, `(frames, 257)`."""
    return np.fft.rfft(_frames(signal, _WINDOW_SAMPLES, _HOP_SAMPLES))


def _to_signal(spectrum: Spectrum, num_samples: int) -> Signal:
    """Overlap-add with the least-squares window, the inverse of `_to_spectrum` where `spectrum` is consistent."""
    window = _hann(_WINDOW_SAMPLES)
    frames = np.fft.irfft(spectrum, _WINDOW_SAMPLES) * window
    overlap = _WINDOW_SAMPLES // _HOP_SAMPLES
    blocks = np.zeros((frames.shape[0] + overlap - 1, _HOP_SAMPLES))
    for part in range(overlap):
        blocks[part : part + frames.shape[0]] += frames[:, part * _HOP_SAMPLES : (part + 1) * _HOP_SAMPLES]
    energy = (window**2).sum() / _HOP_SAMPLES
    return np.asarray(blocks.reshape(-1)[_WINDOW_SAMPLES // 2 :][:num_samples] / energy)


@functools.cache
def _mel_smoothing(num_bands: int) -> Signal:
    """Return `(257, 257)`: `magnitude @ it` keeps `num_bands` mel band averages and interpolates between them."""
    bins_hz = np.fft.rfftfreq(_WINDOW_SAMPLES, 1 / SAMPLE_RATE_HZ)
    bins_mel = 2595 * np.log10(1 + bins_hz / 700)
    centres = np.linspace(0, bins_mel[-1], num_bands)
    distance = np.abs(bins_mel[:, None] - centres[None, :]) / (centres[1] - centres[0])
    hats = np.maximum(1 - distance, 0)
    averages = hats / np.maximum(hats.sum(axis=0, keepdims=True), 1e-9)
    heard = hats.sum(axis=0) > 0
    averages[distance.argmin(axis=0)[~heard], np.flatnonzero(~heard)] = 1.0
    smoothing = np.asarray(averages @ hats.T)
    smoothing.flags.writeable = False
    return smoothing


def _f0_track(speech: Signal, hop: int) -> Signal:
    """Return F0 in Hz per frame by the highest autocorrelation between 70 and 320 Hz; 0 where unvoiced."""
    spectra = np.abs(np.fft.rfft(_frames(speech, 800, hop), 1280)) ** 2
    correlation = np.fft.irfft(spectra)
    shortest, longest = SAMPLE_RATE_HZ // 320, SAMPLE_RATE_HZ // 70
    lags = correlation[:, shortest:longest]
    best = lags.argmax(axis=1)
    strength = lags.max(axis=1) / np.maximum(correlation[:, 0], 1e-9)
    return np.where(strength > _VOICED_AUTOCORRELATION, SAMPLE_RATE_HZ / (shortest + best), 0.0)


def _excitation(f0_hz: Signal, hop: int, generator: np.random.Generator) -> Signal:
    """Return `(frames * hop,)` of unit power: equal pulses at F0, noise where F0 is 0."""
    per_sample = np.repeat(f0_hz, hop)
    cycles = np.floor(np.cumsum(per_sample) / SAMPLE_RATE_HZ)
    pulses = np.diff(cycles, prepend=0.0) * np.sqrt(SAMPLE_RATE_HZ / np.maximum(per_sample, 1.0))
    return np.where(per_sample > 0, pulses, generator.standard_normal(per_sample.size))


def _levinson(correlations: Signal) -> tuple[Signal, Signal]:
    """Solve for the predictors `(frames, order + 1)`, the first coefficient 1, and their errors `(frames,)`."""
    num_frames, size = correlations.shape
    errors = correlations[:, 0] * 1.0001 + 1e-6
    predictors = np.zeros((num_frames, size))
    predictors[:, 0] = 1.0
    for order in range(1, size):
        reflection = -(predictors[:, :order] * correlations[:, order:0:-1]).sum(axis=1) / errors
        predictors[:, 1 : order + 1] += reflection[:, None] * predictors[:, order - 1 :: -1][:, :order]
        errors = errors * (1 - reflection**2)
    return predictors, errors


VOCODERS: dict[str, Vocoder] = {
    "D01": lpc_pulses,
    "D02": griffin_lim,
    "D03": mel_envelope,
    "D04": coarse_steps,
}
