"""A spoof has the long-term spectrum of its source, and every moment is where its vocoder put it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, sosfilt, welch

from tests.small_audio import babble
from training.spoofs.signal_vocoders import SIGNAL_VOCODERS
from training.spoofs.spectrum import WINDOW_SAMPLES, with_spectrum_of
from utils.audio.waveforms import SAMPLE_RATE_HZ, Waveform

HUM_HZ, CUT_HZ = 60, 7_000


@pytest.fixture(scope="module")
def source() -> Waveform:
    """Four seconds of something like speech, from 80 Hz to 7 kHz, and a soft noise."""
    band = butter(8, (80, CUT_HZ), "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    noise = 1e-4 * np.random.default_rng(0).standard_normal(4 * SAMPLE_RATE_HZ)
    return (sosfilt(band, babble(4.0)[:, 0]) + noise).astype(np.float32)


def level_db(sound: Waveform, low_hz: float, high_hz: float) -> float:
    """Return the mean power of a band in decibels."""
    frequencies, power = welch(sound, SAMPLE_RATE_HZ, nperseg=4 * WINDOW_SAMPLES)
    return float(10 * np.log10(power[(frequencies >= low_hz) & (frequencies < high_hz)].mean()))


@pytest.mark.parametrize("vocoder", ["griffin_lim", "lpc", "sinusoidal"])
@pytest.mark.parametrize("band_hz", [(0, HUM_HZ), (100, 1_000), (1_000, 4_000), (7_300, 8_000)])
def test_no_band_tells_a_spoof_by_its_level(vocoder: str, band_hz: tuple[float, float], source: Waveform) -> None:
    made = SIGNAL_VOCODERS[vocoder](source.astype(np.float64), np.random.default_rng(1)).astype(np.float32)
    spoof = with_spectrum_of(source, made)
    assert level_db(spoof, *band_hz) == pytest.approx(level_db(source, *band_hz), abs=4)


def test_this_says_something_since_a_vocoder_hums(source: Waveform) -> None:
    made = SIGNAL_VOCODERS["lpc"](source.astype(np.float64), np.random.default_rng(1)).astype(np.float32)
    assert level_db(made, 0, HUM_HZ) > level_db(source, 0, HUM_HZ) + 10


def test_nothing_is_moved(source: Waveform) -> None:
    """A source that was only coloured becomes the source again, sample by sample, but for its first and last 64 ms."""
    coloured = np.convolve(source, [0.4, 1.0, 0.4], "same").astype(np.float32)
    spoof, inner = with_spectrum_of(source, coloured), slice(WINDOW_SAMPLES, -WINDOW_SAMPLES)
    assert np.corrcoef(spoof[inner], source[inner])[0, 1] > 0.98 > np.corrcoef(coloured[inner], source[inner])[0, 1]


@pytest.mark.parametrize("samples", [1, 100, WINDOW_SAMPLES - 1, WINDOW_SAMPLES + 1])
def test_short_ones_keep_their_length(samples: int, source: Waveform) -> None:
    made = source[:samples] * np.float32(0.5) + np.float32(0.1)
    spoof = with_spectrum_of(source[:samples], made)
    assert spoof.shape == (samples,) and spoof.dtype == np.float32 and np.isfinite(spoof).all()


def test_silence_and_what_is_not_finite_stay_what_they_are(source: Waveform) -> None:
    silence, broken = np.zeros_like(source), np.full_like(source, np.nan)
    for one, made in ((source, silence), (silence, source), (source, broken)):
        assert with_spectrum_of(one, made) is made


def test_frames_that_come_in_parts_give_what_all_at_once_give(
    source: Waveform, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = np.diff(source, prepend=np.float32(0))
    whole = with_spectrum_of(source, made)
    monkeypatch.setattr("training.spoofs.spectrum._FRAMES_AT_A_TIME", 7)
    np.testing.assert_allclose(with_spectrum_of(source, made), whole, atol=1e-6)
