"""Listening to whole files: what is wrong with one, and what training would make of it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.small_audio import write_sound
from utils.audio import reading
from utils.audio.checking import AudioFault, check_audio
from utils.audio.reading import open_audio
from utils.audio.waveforms import read_waveform
from utils.errors import UserError


@pytest.mark.parametrize("suffix", [".flac", ".wav", ".ogg", ".mp3"])
def test_a_whole_file_has_no_fault(tmp_path: Path, suffix: str) -> None:
    checked = check_audio(write_sound(tmp_path / f"a{suffix}", seconds=1, rate_hz=8000))
    assert (checked.fault, checked.sample_rate_hz, checked.channels) == (None, 8000, 1)
    assert checked.seconds == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("share", [0.99, 0.5, 0.1, 0.01, 0.0])
def test_a_flac_file_that_is_cut_anywhere_is_unreadable_to_training_too(tmp_path: Path, share: float) -> None:
    path = write_sound(tmp_path / "a.flac", seconds=2)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    checked = check_audio(path)
    assert checked.fault is AudioFault.UNREADABLE
    assert checked.reason
    with pytest.raises(UserError, match="cannot be read"):
        read_waveform(path)


def test_a_wav_file_that_is_cut_is_noted_with_what_is_left(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", seconds=1)
    path.write_bytes(path.read_bytes()[: 44 + 8000])
    checked = check_audio(path)
    assert (checked.fault, checked.samples) == (AudioFault.CUT, 4000)
    assert checked.reason == "4,000 samples, its header says 16,000"
    assert read_waveform(path).size == 4000


@pytest.mark.parametrize(("suffix", "kind"), [(".aiff", "AIFF"), (".au", "AU"), (".rf64", "RF64")])
def test_other_files_with_a_header_are_noted_as_wav_files_are(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.random.default_rng(1).uniform(-1, 1, 16_000), 16_000, format=kind, subtype="PCM_16")
    whole = path.read_bytes()
    assert check_audio(path).fault is None
    path.write_bytes(whole[: -2 * 4000])
    assert check_audio(path).reason == "12,000 samples, its header says 16,000"
    path.write_bytes(whole + b"\1" * 10_000)
    assert check_audio(path).reason == "its header says 16,000 samples, and 10,000 bytes follow them"


def test_a_wav_file_written_to_a_pipe_which_has_no_length_is_not_taken_for_cut(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", seconds=1)
    content = path.read_bytes()
    path.write_bytes(content[:40] + b"\xff\xff\xff\xff" + content[44:])
    assert (check_audio(path).fault, check_audio(path).samples) == (None, 16_000)


def test_a_file_without_samples_and_one_that_is_no_audio_are_unreadable(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    (tmp_path / "text.flac").write_text("not audio")
    (tmp_path / "empty.flac").touch()
    reasons = {name: check_audio(tmp_path / name).reason for name in ("none.wav", "text.flac", "empty.flac", "no.flac")}
    assert reasons == {
        "none.wav": "it holds no samples",
        "text.flac": "Format not recognised",
        "empty.flac": "it is empty",
        "no.flac": "there is no such file",
    }


def test_a_sample_that_is_not_finite_is_a_fault_and_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan, 0.0], np.float32), 16_000, subtype="FLOAT")
    assert check_audio(tmp_path / "a.wav").reason == "sample 1 is nan"


@pytest.mark.parametrize(
    ("rate_hz", "samples", "is_longer"), [(16_000, 64_600, False), (16_000, 64_601, True), (8000, 32_301, True)]
)
def test_longer_than_the_crop_is_counted_at_16_khz(tmp_path: Path, rate_hz: int, samples: int, is_longer: bool) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(samples), rate_hz)
    assert check_audio(tmp_path / "a.wav").is_longer_than_the_crop is is_longer


@pytest.mark.filterwarnings("error")
def test_the_level_of_samples_in_the_scale_of_32_bit_integers_is_theirs(tmp_path: Path) -> None:
    file = tmp_path / "loud.wav"
    soundfile.write(file, np.full(16_000, 2.0**31), 16_000, subtype="FLOAT")
    checked = check_audio(file)
    assert checked.fault is AudioFault.LOUD and checked.level_db == pytest.approx(186.64, abs=0.01)


def test_channels_that_cancel_each_other_are_silence_which_is_what_training_hears(tmp_path: Path) -> None:
    one = np.sin(np.arange(16_000)) / 2
    soundfile.write(tmp_path / "a.wav", np.stack([one, -one], axis=1), 16_000, subtype="FLOAT")
    assert not read_waveform(tmp_path / "a.wav").any()
    assert check_audio(tmp_path / "a.wav").fault is AudioFault.SILENT


def varying_mp3(path: Path, first: float, then: float) -> bytes:
    """Noise of two levels at a varying bit rate: the bytes of the file and, at `path`, those without its length."""
    noise = np.random.default_rng(1).uniform(-1, 1, 64_000) * np.repeat([first, then], 32_000)
    soundfile.write(path, noise, 16_000, bitrate_mode="VARIABLE", compression_level=0.1)
    whole = path.read_bytes()
    path.write_bytes(whole[whole.index(b"\xff\xf3", whole.index(b"Xing")) :])
    return whole


def test_an_mp3_file_of_varying_bit_rate_without_a_length_is_noted_where_only_a_part_of_it_is_decoded(
    tmp_path: Path,
) -> None:
    whole = varying_mp3(tmp_path / "a.mp3", 0.9, 0)
    checked = check_audio(tmp_path / "a.mp3")
    assert checked.fault is AudioFault.LONGER and checked.samples < 60_000
    assert checked.reason.startswith(f"no header says how long it is: the decoder gave {checked.samples:,} samples")
    (tmp_path / "whole.mp3").write_bytes(whole)
    assert check_audio(tmp_path / "whole.mp3").fault is None


def test_a_whole_mp3_file_without_a_length_is_not_taken_for_cut(tmp_path: Path) -> None:
    varying_mp3(tmp_path / "a.mp3", 0, 0.9)
    with open_audio(tmp_path / "a.mp3") as file:
        assert file.promised > 100_000, "the guess is too high, or nothing is tried here"
    checked = check_audio(tmp_path / "a.mp3")
    assert checked.fault is None and checked.samples > 64_000


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_a_stream_with_a_second_one_behind_it_is_noted(tmp_path: Path, suffix: str) -> None:
    path = write_sound(tmp_path / f"a{suffix}", seconds=4)
    path.write_bytes(2 * path.read_bytes())
    checked = check_audio(path)
    assert (checked.fault, checked.samples) == (AudioFault.LONGER, 64_000)
    assert checked.reason.startswith("its header says 64,000 samples, and ")


def test_a_flac_file_whose_header_says_too_little_is_noted(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.flac", seconds=4)
    content = bytearray(path.read_bytes())
    content[22:26] = (10_000).to_bytes(4, "big")
    path.write_bytes(content)
    assert (check_audio(path).fault, check_audio(path).samples) == (AudioFault.LONGER, 10_000)


def test_tags_behind_an_mp3_file_are_no_sound(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mp3", seconds=1)
    path.write_bytes(path.read_bytes() + b"APETAGEX" + bytes(20_000))
    assert check_audio(path).fault is None


def test_hours_of_silence_packed_into_few_bytes_are_refused_by_the_check_and_by_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 million zeros are a FLAC file of 0.6 MB, and were 1.5 GB in training."""
    monkeypatch.setattr(reading, "_MOST_OF_SILENCE", 200_000)
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros(1_000_000, dtype=np.int16), 16_000)
    assert 64 * path.stat().st_size < 1_000_000
    words = "samples come out of its [0-9,]+ bytes: it is hours of silence"
    assert re.search(words, check_audio(path).reason) and check_audio(path).fault is AudioFault.UNREADABLE
    with pytest.raises(UserError, match=words):
        read_waveform(path)
    soundfile.write(path, np.zeros(150_000, dtype=np.int16), 16_000)
    assert check_audio(path).fault is AudioFault.SILENT and read_waveform(path).size == 150_000
