"""Gives a copy the long-term spectrum of its source, so that hum, cut-offs and microphones do not tell them apart.

Vocoders fill what a recording has filtered out: below 60 Hz those of this program had up to 37 dB more than their
sources, and a detector need not hear more than that. What a vocoder does to voice and noise from one moment to the next
stays as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve

from utils.audio.waveforms import Waveform

WINDOW_SAMPLES = 1024
"""64 ms: bands of 16 Hz, narrow enough for hum."""
LEAST_GAIN, MOST_GAIN = 10**-2.5, 10**1.5  # -50 and 30 dB
_ROUNDS = 3  # what the sides of a window leave of steep edges
_FRAMES_AT_A_TIME = 4096
_WINDOW = np.hanning(WINDOW_SAMPLES + 1)[:-1]
Power = NDArray[np.float64]


def with_spectrum_of(source: Waveform, made: Waveform) -> Waveform:
    """Return `made` (samples,) through a filter without delay that gives it the long-term spectrum of `source`.

    That is the power of each band of 16 Hz, on average over the whole. It is approached in three rounds, each of which
    raises a band by 30 dB at most and lowers it by 50. What is not finite, and silence, stay what they are.
    """
    wanted, sound = _power(source.astype(np.float64)), made.astype(np.float64)
    if not wanted.any() or not np.isfinite(sound).all():
        return made
    for _ in range(_ROUNDS):
        found = _power(sound)
        if not found.any():
            return made
        least = 1e-12 * found.max()  # below it there is rounding alone
        gains = np.clip(np.sqrt(wanted / np.maximum(found, least)), LEAST_GAIN, MOST_GAIN)
        response = np.roll(np.fft.irfft(gains), WINDOW_SAMPLES // 2) * _WINDOW
        sound = oaconvolve(sound, response)[WINDOW_SAMPLES // 2 :][: made.size]
    return sound.astype(np.float32)


def _power(sound: NDArray[np.float64]) -> Power:
    """Return the mean power of bands (513,) over windows that overlap by half."""
    padded = np.pad(sound, (0, max(0, WINDOW_SAMPLES - sound.size)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[:: WINDOW_SAMPLES // 2]
    power = np.zeros(WINDOW_SAMPLES // 2 + 1)
    for start in range(0, len(frames), _FRAMES_AT_A_TIME):
        part = np.fft.rfft(frames[start : start + _FRAMES_AT_A_TIME] * _WINDOW, axis=1)
        power += (np.abs(part) ** 2).sum(axis=0)
    return power / len(frames)
