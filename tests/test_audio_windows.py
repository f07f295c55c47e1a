"""The windows of a file are the samples that training hears of it, to the bit, at any rate and length."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from utils.audio.checking import check_audio
from utils.audio.reading import UnreadableAudioError
from utils.audio.waveforms import CROP_SAMPLES, read_waveform
from utils.audio.windows import WindowedAudio, expected_windows
from utils.errors import UserError


@pytest.mark.parametrize("rate_hz", [16_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 16_001])
@pytest.mark.parametrize("seconds", [0.01, 64_600 / 16_000, 4.04, 13.7])
def test_the_windows_are_the_file_as_training_reads_it(tmp_path: Path, rate_hz: int, seconds: float) -> None:
    path = tmp_path / "a.wav"
    sound = np.random.default_rng(3).uniform(-1, 1, (round(seconds * rate_hz), 2))
    soundfile.write(path, sound, rate_hz, subtype="FLOAT")
    whole, audio = read_waveform(path), WindowedAudio(path)
    windows = list(audio)
    assert audio.seconds == len(sound) / rate_hz and len(windows) == expected_windows(path)
    assert 0.5 < audio.peak <= 1 and audio.frames == len(sound) and audio.doubt is None
    if whole.size < CROP_SAMPLES:
        np.testing.assert_array_equal(windows[0].waveform, np.resize(whole, CROP_SAMPLES))
        return
    for window in windows:
        np.testing.assert_array_equal(window.waveform, whole[window.start : window.start + CROP_SAMPLES])
    assert [window.start for window in windows[:-1]] == [n * CROP_SAMPLES for n in range(len(windows) - 1)]
    assert windows[-1].start == whole.size - CROP_SAMPLES


def test_a_fault_far_into_a_file_comes_after_the_windows_before_it(tmp_path: Path) -> None:
    sound = np.zeros(3 * CROP_SAMPLES)
    sound[150_000] = np.inf
    soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    windows = iter(WindowedAudio(tmp_path / "a.wav"))
    assert [next(windows).start_s, next(windows).start_s] == [0, 4.0375]
    with pytest.raises(UnreadableAudioError) as refused:
        next(windows)
    assert refused.value.reason == "sample 150,000 is inf"


def test_a_name_that_is_not_utf_8_is_read(tmp_path: Path) -> None:
    """A corpus with one ended training with a traceback; written on Linux under another encoding, it is common."""
    path = tmp_path / os.fsdecode(b"lat\xe9.wav")
    soundfile.write(os.fsencode(path), np.full(100, 0.1), 16_000, format="WAV")
    assert read_waveform(path).size == 100 and len(list(WindowedAudio(path))) == 1
    assert check_audio(path).fault is None


def test_a_flac_file_that_does_not_say_how_long_it_is_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """As ffmpeg leaves it where it writes to a pipe: 36 zero bits as the number of samples (RFC 9639, section 8.2)."""
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros(20_000), 16_000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(UserError, match="its header does not say how long it is"):
        read_waveform(path)
    with pytest.raises(UnreadableAudioError, match="its header does not say how long it is"):
        list(WindowedAudio(path))
    assert expected_windows(path) == 1
