"""Random band-stop filters and fast filtering with many of them at once: the linear part of RawBoost.

The distribution is that of the published code, genNotchCoeffs and filterFIR of TakHemlata/RawBoost-antispoofing
(RawBoost.py); the computation is not. A cascade of short filters is one product of frequency responses, and since
filtering is linear, the sum of several filtered signals costs one inverse transform.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from utils.audio.waveforms import SAMPLE_RATE_HZ, Waveform

NYQUIST_HZ = SAMPLE_RATE_HZ / 2
EDGE_HZ = 1e-3
"""How far the edges of a notch stay from 0 Hz and from half the sampling rate."""
SHORTEST_GRID = 1024
BLOCK = 4096

Taps = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NotchRanges:
    """From what a random cascade is drawn, each number evenly between its limits.

    A cascade has `num_bands` notches; each has a centre and a width in Hz and a number of taps, made odd. The whole
    cascade has a gain in dB at the peak of its response. Defaults: main.py of TakHemlata/RawBoost-antispoofing.
    """

    num_bands: int = 5
    min_centre_hz: float = 20.0
    max_centre_hz: float = 8000.0
    min_width_hz: float = 100.0
    max_width_hz: float = 1000.0
    min_taps: int = 10
    max_taps: int = 100
    min_gain_db: float = 0.0
    max_gain_db: float = 0.0


def random_cascades(
    ranges: NotchRanges, generator: np.random.Generator, lowered_by_db: Iterable[tuple[float, float]] = ((0.0, 0.0),)
) -> Taps:
    """Return one cascade for each pair in `lowered_by_db`, `(cascades, taps)`, symmetric about their middle.

    A pair lowers the two limits of that cascade's gain. Shorter cascades are padded with zeros at both ends.
    """
    lowered = np.array(list(lowered_by_db), dtype=np.float64)
    shape = (len(lowered), ranges.num_bands)
    centres = generator.uniform(ranges.min_centre_hz, ranges.max_centre_hz, shape)
    widths = generator.uniform(ranges.min_width_hz, ranges.max_width_hz, shape)
    num_taps = generator.uniform(ranges.min_taps, ranges.max_taps, shape).astype(np.int64)
    # By hand: `uniform` refuses limits that have changed places, and lowering the upper one by more makes them do so.
    lowest, highest = ranges.min_gain_db - lowered[:, 0], ranges.max_gain_db - lowered[:, 1]
    gains_db = lowest + (highest - lowest) * generator.random(len(lowered))
    return cascades(centres, widths, num_taps, gains_db)


def cascades(
    centres_hz: npt.NDArray[np.float64],
    widths_hz: npt.NDArray[np.float64],
    num_taps: npt.NDArray[np.int64],
    gains_db: npt.NDArray[np.float64],
) -> Taps:
    """Return the cascades whose notches are the rows `(cascades, bands)`; the gain `(cascades,)` is that at the peak.

    An even number of taps is made odd by one more.
    """
    notches = _notches(centres_hz, widths_hz, num_taps // 2)
    length = notches.shape[1] * (notches.shape[2] - 1) + 1
    grid = fft.next_fast_len(max(length, SHORTEST_GRID), real=True)
    response = fft.rfft(notches, grid).prod(axis=1)
    peaks = np.abs(response[:, : grid // 2]).max(axis=1)
    taps = fft.irfft(response, grid)[:, :length]
    return np.asarray(taps * (10 ** (gains_db / 20) / peaks)[:, np.newaxis], dtype=np.float64)


def _notches(
    centres_hz: npt.NDArray[np.float64], widths_hz: npt.NDArray[np.float64], half: npt.NDArray[np.int64]
) -> Taps:
    """Return band-stop filters by the window method, Hamming, with 2 half + 1 taps, padded to `(..., most taps)`.

    scipy.signal.firwin scales each to a gain of 1 at 0 Hz. Once the cascade's peak is scaled, only the sign of that
    is left: that sign is kept, and a notch that takes all of 0 Hz away divides nothing by zero.
    """
    lower = np.where(centres_hz - widths_hz / 2 <= 0, EDGE_HZ, centres_hz - widths_hz / 2) / NYQUIST_HZ
    upper = np.minimum(centres_hz + widths_hz / 2, NYQUIST_HZ - EDGE_HZ) / NYQUIST_HZ
    lower, upper, reach = lower[..., np.newaxis], upper[..., np.newaxis], half[..., np.newaxis]
    places = np.arange(1, max(int(half.max()), 1) + 1)
    passed = (np.sin(np.pi * lower * places) - np.sin(np.pi * upper * places)) / (np.pi * places)
    window = np.where(places <= reach, 0.54 + 0.46 * np.cos(np.pi * places / np.maximum(reach, 1)), 0.0)
    side = passed * window
    whole = np.concatenate([side[..., ::-1], 1 - (upper - lower), side], axis=-1)
    return np.asarray(whole * np.where(whole.sum(axis=-1, keepdims=True) < 0, -1.0, 1.0), dtype=np.float64)


def filter_powers(waveform: Waveform, taps: Taps) -> Waveform:
    """Return the sum over k of `waveform` to the power k + 1, filtered with row k of `taps`, as float32 `(samples,)`.

    `taps` `(powers, taps)` has an odd number of taps, 3 or more. Silence surrounds the waveform. The output is centred
    but for one sample: it is early by one, as that of the published filterFIR is. Worked block by block, all powers of
    a block summed as spectra, by overlap-save; in float32, whose rounding lies 100 dB and more below the peak.
    """
    size, length = waveform.size, taps.shape[1]
    block = min(max(BLOCK, 1 << (4 * length).bit_length()), fft.next_fast_len(size + length - 1, real=True))
    hop = block - length + 1
    num_blocks = -(-size // hop)
    padded = np.zeros(num_blocks * hop + length - 1, dtype=np.float32)
    padded[(length - 3) // 2 :][:size] = waveform
    blocks = np.lib.stride_tricks.sliding_window_view(padded, block)[::hop]
    responses = fft.rfft(taps.astype(np.float32), block)
    power = blocks
    spectrum = fft.rfft(power) * responses[0]
    for response in responses[1:]:
        power = power * blocks
        spectrum += fft.rfft(power) * response
    return np.asarray(fft.irfft(spectrum, block)[:, length - 1 :].reshape(-1)[:size], dtype=np.float32)
