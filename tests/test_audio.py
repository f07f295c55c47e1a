"""Waveforms: any file becomes 16 kHz mono, any waveform one length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from utils.audio.waveforms import CROP_SAMPLES, SAMPLE_RATE_HZ, fit_length, read_waveform
from utils.errors import UserError


def _tone(sample_rate_hz: int, seconds: float = 0.5) -> npt.NDArray[np.float64]:
    return np.asarray(0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * sample_rate_hz)) / sample_rate_hz))


def test_a_16_khz_mono_file_is_read_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, _tone(SAMPLE_RATE_HZ), SAMPLE_RATE_HZ, subtype="PCM_16")
    waveform = read_waveform(path)
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, np.round(_tone(SAMPLE_RATE_HZ) * 32768) / 32768)


@pytest.mark.parametrize("sample_rate_hz", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_any_rate_becomes_16_khz(tmp_path: Path, sample_rate_hz: int, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, _tone(sample_rate_hz), sample_rate_hz)
    waveform = read_waveform(path)
    assert waveform.shape == (SAMPLE_RATE_HZ // 2,)
    middle = slice(1000, -1000)
    np.testing.assert_allclose(waveform[middle], _tone(SAMPLE_RATE_HZ)[middle], atol=2e-3)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.array([[0.5, 0.25], [-0.5, 0.5]]), SAMPLE_RATE_HZ, subtype="FLOAT")
    assert read_waveform(path).tolist() == [0.375, 0.0]


def _write_cut_flac(path: Path) -> None:
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 20_000), SAMPLE_RATE_HZ)
    path.write_bytes(path.read_bytes()[:20_000])


def _write_flipped_flac(path: Path) -> None:
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 20_000), SAMPLE_RATE_HZ)
    content = bytearray(path.read_bytes())
    content[20_000] ^= 4
    path.write_bytes(content)


def _write_not_a_number(path: Path) -> None:
    soundfile.write(path, [0.0, 0.5, np.nan], SAMPLE_RATE_HZ, format="WAV", subtype="FLOAT")


def _write_beyond_every_scale(path: Path) -> None:
    soundfile.write(path, [0.0, 1e30, 0.5], SAMPLE_RATE_HZ, format="WAV", subtype="FLOAT")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_text("hello"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: None, "no such file"),
        (_write_cut_flac, "cannot be read"),
        (_write_flipped_flac, "cannot be read"),
        (lambda path: soundfile.write(path, np.zeros(0), SAMPLE_RATE_HZ, format="WAV"), "holds no samples"),
        (_write_not_a_number, "sample 2 is nan"),
        (_write_beyond_every_scale, "sample 1 is 1e\\+30, beyond every scale of audio: full scale is 1"),
    ],
)
def test_a_file_without_sound_is_refused_by_name(tmp_path: Path, write, words: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "bad.flac"
    write(path)
    with pytest.raises(UserError, match=words) as refused:
        read_waveform(path)
    assert str(path) in str(refused.value)


def test_floats_in_the_scale_of_32_bit_integers_are_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", [0.5, -(2.0**31)], SAMPLE_RATE_HZ, subtype="FLOAT")
    assert read_waveform(tmp_path / "a.wav").tolist() == [0.5, -(2.0**31)]


def test_the_usual_length_is_that_of_the_field() -> None:
    assert fit_length(np.zeros(100_000, dtype=np.float32)).shape == (64_600,) == (CROP_SAMPLES,)


@pytest.mark.parametrize(
    ("samples", "start", "expected"),
    [
        ([1, 2, 3, 4, 5, 6], 0, [1, 2, 3, 4]),
        ([1, 2, 3, 4, 5, 6], 2, [3, 4, 5, 6]),
        ([1, 2, 3, 4], 0, [1, 2, 3, 4]),
        ([1, 2, 3], 0, [1, 2, 3, 1]),
        ([7], 0, [7, 7, 7, 7]),
    ],
)
def test_a_waveform_is_cut_or_repeated(samples: list[float], start: int, expected: list[float]) -> None:
    fitted = fit_length(np.array(samples, dtype=np.float32), crop_samples=4, start=start)
    assert fitted.tolist() == expected
    assert fitted.dtype == np.float32


@pytest.mark.parametrize("start", [-1, 3])
def test_a_start_past_the_last_full_crop_is_a_bug(start: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 2, found {start}"):
        fit_length(np.zeros(6, dtype=np.float32), crop_samples=4, start=start)


def test_an_empty_waveform_cannot_be_repeated() -> None:
    with pytest.raises(ValueError, match="empty"):
        fit_length(np.zeros(0, dtype=np.float32))
