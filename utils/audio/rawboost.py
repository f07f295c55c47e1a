"""RawBoost: data augmentation of raw waveforms by convolutive, impulsive and coloured additive noise.

Algorithms, ranges and defaults are those of Tak et al. 2022, arXiv 2111.04433, and of its public code,
TakHemlata/RawBoost-antispoofing (RawBoost.py, data_utils_rawboost.py, main.py). Draws come from a generator that is
passed in, silence stays finite, and the result is float32; what is drawn from where is as published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from utils.audio.notch_filters import NotchRanges, filter_powers, random_cascades
from utils.audio.waveforms import Waveform

Noise = Callable[["RawBoost", Waveform, np.random.Generator], Waveform]


@dataclass(frozen=True)
class RawBoost:
    """One of the nine algorithms with its ranges; called with a waveform and a generator, it returns the augmented one.

    0 does nothing. 1 is `convolutive_noise`, 2 `impulsive_noise`, 3 `coloured_noise`; in series 4 is 1, 2, 3; 5 is
    1, 2; 6 is 1, 3; 7 is 2, 3. 8 is 1 and 2 side by side, summed. With 3, 4, 6 and 7 samples may exceed 1, as they do
    in the published code; otherwise they exceed it only where the waveform did and nothing was done.

    >>> RawBoost(algorithm=5)(np.zeros(3, dtype=np.float32), np.random.default_rng(0))
    array([0., 0., 0.], dtype=float32)
    """

    algorithm: int = 0
    notches: NotchRanges = field(default_factory=NotchRanges)
    num_powers: int = 5
    min_lowered_db: float = 5.0
    max_lowered_db: float = 20.0
    max_percent: float = 10.0
    impulse_gain: float = 2.0
    min_snr_db: float = 10.0
    max_snr_db: float = 40.0

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return `waveform` `(samples,)` augmented, in the same shape, float32."""
        if self.algorithm == 8:
            return _within_one(
                convolutive_noise(self, waveform, generator) + impulsive_noise(self, waveform, generator)
            )
        for noise in SERIES[self.algorithm]:
            waveform = noise(self, waveform, generator)
        return waveform


def convolutive_noise(settings: RawBoost, waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """Return the sum of the waveform and its powers, each through a random cascade of notches.

    From the second power on, the lower limit of the gain is lower by `min_lowered_db` and the upper one by
    `max_lowered_db`. The mean is removed, and a peak above 1 brought down to 1.
    """
    lowered = [(0.0, 0.0)] + [(settings.min_lowered_db, settings.max_lowered_db)] * (settings.num_powers - 1)
    filtered = filter_powers(waveform, random_cascades(settings.notches, generator, lowered))
    return _within_one(filtered - filtered.mean(dtype=np.float64).astype(np.float32))


def impulsive_noise(settings: RawBoost, waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """Return the waveform with some of its samples changed in proportion to themselves.

    Up to `max_percent` % of the samples, x becomes x + `impulse_gain` u v x with u and v even between -1 and 1. A peak
    above 1 is brought down to 1.
    """
    share = settings.max_percent / 100 * generator.random()
    changed = generator.choice(waveform.size, int(waveform.size * share), replace=False, shuffle=False)
    factors = np.prod(2 * generator.random((2, changed.size), dtype=np.float32) - 1, axis=0)
    noisy = waveform.copy()
    noisy[changed] *= 1 + np.float32(settings.impulse_gain) * factors
    return _within_one(noisy)


def coloured_noise(settings: RawBoost, waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """Return the waveform with stationary noise through a random cascade of notches added.

    The ratio of the energies is even in dB between `min_snr_db` and `max_snr_db`, so silence stays silent. The gain of
    the cascade has no effect: the noise is scaled afterwards.
    """
    white = generator.standard_normal(waveform.size, dtype=np.float32)
    noise = filter_powers(white, random_cascades(settings.notches, generator))
    snr_db = settings.min_snr_db + (settings.max_snr_db - settings.min_snr_db) * generator.random()
    energy = np.linalg.norm(noise)
    if energy == 0:  # one or two samples, filtered to nothing
        return waveform
    return waveform + noise * np.float32(np.linalg.norm(waveform) / energy / 10 ** (snr_db / 20))


SERIES: dict[int, tuple[Noise, ...]] = {
    0: (),
    1: (convolutive_noise,),
    2: (impulsive_noise,),
    3: (coloured_noise,),
    4: (convolutive_noise, impulsive_noise, coloured_noise),
    5: (convolutive_noise, impulsive_noise),
    6: (convolutive_noise, coloured_noise),
    7: (impulsive_noise, coloured_noise),
}


def _within_one(waveform: Waveform) -> Waveform:
    peak = np.abs(waveform).max()
    return waveform / peak if peak > 1 else waveform
