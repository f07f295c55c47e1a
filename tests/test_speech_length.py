"""How long speech is heard: never in silence, noise of any colour, hum, tones and clicks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.small_audio import babble
from utils.audio.speech_length import SpeechLength
from utils.audio.waveforms import read_waveform

RATE = 16_000
REAL_CORPUS = Path(os.environ.get("BONAFIDE_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))


def heard(sound: np.ndarray, size: int = 50_000) -> SpeechLength:
    length = SpeechLength()
    for first in range(0, sound.size, size):
        length.hear(sound[first : first + size].astype(np.float32))
    return length


def noise(seconds: float, level: float = 0.1, slope: float = 0.0) -> np.ndarray:
    """Gaussian noise whose magnitudes fall with frequency to the power of `slope`: 0 white, 0.5 pink, 1 brown."""
    spectrum = np.fft.rfft(np.random.default_rng(3).standard_normal(round(seconds * RATE)))
    hertz = np.maximum(np.arange(spectrum.size) / seconds, 20)
    sound = np.fft.irfft(spectrum * hertz**-slope, round(seconds * RATE))
    return np.asarray(level * sound / max(1e-9, float(sound.std())))


def tones(*hertz: float, seconds: float = 20.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(0.1 * sum(np.sin(2 * np.pi * one * time + one) for one in hertz))


def clicks(every: int) -> np.ndarray:
    sound = np.zeros(20 * RATE)
    sound[::every] = 0.9
    return sound


@pytest.mark.parametrize(
    ("sound", "sound_s", "reason"),
    [
        (np.zeros(RATE), 0.0, "silence"),
        (np.full(RATE, 0.5), 0.0, "a constant offset is no sound"),
        (noise(1.0, 1e-4), 0.0, "hiss of -80 dB"),
        (noise(20.0), 20.0, "white noise is sound and no speech"),
        (noise(20.0, slope=0.5), 20.0, "pink noise"),
        (noise(20.0, slope=1.0), 20.0, "brown noise"),
        (noise(20.0) * (1 + np.sin(np.arange(20 * RATE) / 600)), None, "noise that comes and goes"),
        (tones(*range(50, 1000, 50)), 20.0, "mains hum"),
        (tones(*range(120, 2000, 120)) + noise(20.0, 0.01), 20.0, "mains hum in noise"),
        (tones(440), 20.0, "a tone"),
        (tones(697, 1209), 20.0, "a key of a telephone"),
        (np.sin(np.arange(20 * RATE) ** 2 * 2e-7), None, "a tone that rises"),
        (clicks(4_000), None, "four clicks a second"),
        (clicks(160), 20.0, "a buzz"),
        (noise(0.05), 0.04, "the last frame of 20 ms is not whole"),
        (noise(0.01)[:0], 0.0, "nothing"),
    ],
)
def test_what_is_no_speech_has_no_speech_in_it(sound: np.ndarray, sound_s: float | None, reason: str) -> None:
    length = heard(sound)
    assert length.seconds == 0, reason
    assert sound_s is None or length.sound_s == pytest.approx(sound_s, abs=1e-9), reason


def test_speech_counts_while_it_lasts_and_the_noise_before_it_does_not() -> None:
    speech = babble(2.0)[:, 0]
    assert heard(speech).seconds == heard(speech).sound_s == pytest.approx(2.0)
    assert heard(np.concatenate((noise(10.0, 0.02), speech, noise(10.0, 0.02)))).seconds == pytest.approx(3.2, abs=0.4)
    assert heard(np.concatenate((speech, np.zeros(10 * RATE)))).seconds == pytest.approx(2.0)


def test_it_does_not_matter_in_which_pieces_a_recording_comes() -> None:
    sound = np.concatenate((noise(1.0, 0.02), babble(1.0)[:, 0], noise(0.7, 0.02)))
    lengths = [heard(sound, size) for size in (100, 777, 16_000, 50_000)]
    assert len({(length.seconds, length.sound_s) for length in lengths}) == 1


@pytest.mark.skipif(not REAL_CORPUS.is_dir(), reason=f"no corpus of real speech in {REAL_CORPUS}")
@pytest.mark.parametrize("noise_db", [None, 10])
def test_real_speech_keeps_its_verdict_in_noise_too(noise_db: int | None) -> None:
    for path in sorted(REAL_CORPUS.glob("*_dev/flac/*.flac"))[::40]:
        sound = read_waveform(path).astype(np.float64)
        if noise_db is not None:
            sound += noise(sound.size / RATE, float(sound.std()) * 10 ** (-noise_db / 20), slope=0.5)
        length = heard(sound)
        assert length.seconds >= min(0.5, length.sound_s), path.name


@pytest.mark.filterwarnings("error")
def test_samples_near_the_end_of_float32_are_heard_without_overflow() -> None:
    assert heard(1e38 * noise(2.0)).seconds == 0
