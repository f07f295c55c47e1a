"""Other rates come to 16 kHz as the field brings them there: a sweep of tones, the delay, the length, the cuts."""

from __future__ import annotations

import numpy as np
import pytest

from utils.audio.waveforms import SAMPLE_RATE_HZ, Resampler, Waveform, resampled_length, resampled_pieces

RATES_HZ = (8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000)
SECONDS = 1.0
EDGE = 2_000
"""Samples at either end that are not looked at: there a tone begins and ends, which is no tone."""


def resampled(mono: Waveform, rate_hz: int) -> Waveform:
    return np.concatenate(list(resampled_pieces([mono[:, None]], rate_hz)))


def tone(frequency_hz: float, rate_hz: int) -> Waveform:
    time_s = np.arange(round(SECONDS * rate_hz)) / rate_hz
    return np.sin(2 * np.pi * frequency_hz * time_s).astype(np.float32)


def beside_tone(sound: Waveform, frequency_hz: float) -> tuple[float, float]:
    """Return the gain of a tone in a sound, and all that is beside it, in dB of a tone at full scale."""
    inner = sound[EDGE:-EDGE].astype(np.float64)
    phase = 2 * np.pi * frequency_hz * np.arange(EDGE, EDGE + inner.size) / SAMPLE_RATE_HZ
    basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
    found, *_ = np.linalg.lstsq(basis, inner, rcond=None)
    rest = inner - basis @ found
    return decibels(float(np.hypot(*found))), decibels(float(np.sqrt(2 * np.mean(rest**2))))


def decibels(amplitude: float) -> float:
    return 20 * float(np.log10(max(amplitude, 1e-12)))


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_what_is_heard_up_to_7500_hz_keeps_its_level_and_gets_no_image(rate_hz: int) -> None:
    """Of a file with a lower rate than 16 kHz, up to the same share of what it can hold."""
    highest_hz = 7_500 * min(1.0, rate_hz / SAMPLE_RATE_HZ)
    for frequency_hz in [*np.arange(100.0, highest_hz, 189.7), highest_hz]:
        gain_db, rest_db = beside_tone(resampled(tone(frequency_hz, rate_hz), rate_hz), frequency_hz)
        assert abs(gain_db) < 0.5, f"{frequency_hz} Hz"
        assert rest_db < -100, f"{frequency_hz} Hz"


@pytest.mark.parametrize("rate_hz", [rate_hz for rate_hz in RATES_HZ if rate_hz > SAMPLE_RATE_HZ])
def test_what_16_khz_cannot_hold_comes_back_as_nothing_else(rate_hz: int) -> None:
    for frequency_hz in np.arange(8_000.0, rate_hz / 2, 189.7):
        sound = resampled(tone(frequency_hz, rate_hz), rate_hz)[EDGE:-EDGE].astype(np.float64)
        assert decibels(float(np.sqrt(2 * np.mean(sound**2)))) < -100, f"{frequency_hz} Hz"


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_nothing_comes_later_than_it_was(rate_hz: int) -> None:
    """A click of 1 kHz width in the middle lies where it lay, to a hundredth of a sample."""
    time_s = np.arange(rate_hz) / rate_hz - 0.5
    click = np.exp(-((time_s * 2_000) ** 2)).astype(np.float32)
    found = resampled(click, rate_hz).astype(np.float64)
    centre_s = float((found * np.arange(found.size)).sum() / found.sum()) / SAMPLE_RATE_HZ
    assert abs(centre_s - 0.5) * SAMPLE_RATE_HZ < 0.01


@pytest.mark.parametrize("rate_hz", [*RATES_HZ, 16_001, 7_999, 192_000])
def test_the_length_is_that_of_librosa(rate_hz: int) -> None:
    """ceil(n x ratio), as in librosa.resample with fix=True; what the resampler does not fill is silence."""
    for samples in (1, 2, 5, 50, 999, 64_600):
        wanted = int(np.ceil(samples * (float(SAMPLE_RATE_HZ) / rate_hz)))
        assert resampled_length(samples, rate_hz) == wanted
        assert resampled(np.ones(samples, dtype=np.float32), rate_hz).shape == (wanted,)


def test_a_sound_at_16_khz_keeps_its_bits() -> None:
    sound = np.random.default_rng(1).uniform(-1, 1, 1_000).astype(np.float32)
    np.testing.assert_array_equal(resampled(sound, SAMPLE_RATE_HZ), sound)
    resampler = Resampler(SAMPLE_RATE_HZ)
    assert resampler.take(sound) is sound and resampler.end().size == 0


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_the_pieces_of_a_sound_make_up_the_whole_to_the_bit(rate_hz: int, size: int) -> None:
    sound = np.random.default_rng(2).uniform(-1, 1, 3_001).astype(np.float32)
    resampler = Resampler(rate_hz)
    pieces = [resampler.take(sound[first : first + size]) for first in range(0, sound.size, size)]
    np.testing.assert_array_equal(np.concatenate([*pieces, resampler.end()]), resampled(sound, rate_hz))
