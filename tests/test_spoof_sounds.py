"""What vocoders make of a source: files of its length, level and format, drawn by its name; vocoders and packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import REPOSITORY
from tests.small_audio import babble
from training.settings.command_line import read_command
from training.settings.requests import MakeSpoofs
from training.spoofs.signal_vocoders import SIGNAL_VOCODERS
from training.spoofs.sounds import NoSoundError, read_source, spoof_of, suffix_of_spoof
from training.spoofs.vocoders import FADE_SAMPLES, PIECE_SAMPLES, NamedVocoder, find_vocoders, in_pieces
from utils.errors import UserError

# Container, coding, rate, channels, and what the spoofs are in where that is something else.
FORMATS = [
    ("WAV", "PCM_16", 16_000, 1, None),
    ("FLAC", "PCM_24", 44_100, 2, None),
    ("FLAC", "PCM_16", 8_000, 1, None),
    ("WAV", "FLOAT", 48_000, 1, None),
    ("WAV", "ULAW", 8_000, 1, None),
    ("AIFF", "PCM_16", 22_050, 1, None),
    ("OGG", "VORBIS", 16_000, 1, "FLAC PCM_16"),
    ("WAV", "MS_ADPCM", 16_000, 1, "FLAC PCM_16"),
    ("MP3", "MPEG_LAYER_III", 16_000, 1, None),
]


@pytest.mark.parametrize(("container", "coding", "rate", "channels", "becomes"), FORMATS)
def test_a_spoof_has_the_length_level_and_format_of_its_source(
    container: str, coding: str, rate: int, channels: int, becomes: str | None, tmp_path: Path
) -> None:
    if not soundfile.check_format(container, coding):
        pytest.skip(f"libsndfile here has no {container} {coding}")
    path = tmp_path / f"source.{container.lower()}"
    soundfile.write(path, 0.3 * babble(0.5, rate, channels)[:-7], rate, format=container, subtype=coding)
    source = read_source(path)
    copy = 2 * np.random.default_rng(1).standard_normal(source.waveform.size).astype(np.float32)
    spoof = spoof_of(source, copy)
    place = tmp_path / f"spoof{suffix_of_spoof(path, source.format, rate)}"
    place.write_bytes(spoof.content)
    found = read_source(place)
    assert (found.samples, found.sample_rate_hz, found.channels) == (source.samples, rate, channels)
    assert found.format == (becomes or source.format)
    assert place.suffix == (".flac" if becomes else path.suffix)
    assert found.level == pytest.approx(source.level, rel=0.02)


def test_a_file_of_floats_does_not_say_when_it_was_written(tmp_path: Path) -> None:
    """libsndfile writes the time into it, so that a file made again would be another one."""
    path = tmp_path / "floats.wav"
    soundfile.write(path, babble(0.1), 16_000, subtype="FLOAT")
    content = spoof_of(read_source(path), babble(0.1)[:, 0].astype(np.float32)).content
    at = content.index(b"PEAK")
    assert content[at + 12 : at + 16] == bytes(4) != path.read_bytes()[at + 12 : at + 16]


def sound(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, 16_000)
    return path


def test_what_would_clip_is_quieter_than_its_source(tmp_path: Path) -> None:
    source = read_source(sound(tmp_path / "square.wav", np.tile([0.5, -0.5], 500)))
    pulses = np.zeros(1000, dtype=np.float32)
    pulses[::100] = 1
    spoof = spoof_of(source, pulses)
    assert spoof.quieter_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(0.01)), abs=0.02)  # of which a peak of 5
    (tmp_path / "spoof.wav").write_bytes(spoof.content)
    assert read_source(tmp_path / "spoof.wav").peak == pytest.approx(0.999, abs=1e-4)


def test_silence_gives_silence_and_anything_else_must_not(tmp_path: Path) -> None:
    silent = np.zeros(500, dtype=np.float32)
    assert spoof_of(read_source(sound(tmp_path / "silent.wav", silent)), silent).quieter_db == 0
    source = read_source(sound(tmp_path / "a.wav", babble(0.1)))
    with pytest.raises(NoSoundError, match="every sample is 0"):
        spoof_of(source, silent)
    silent[3] = np.nan
    with pytest.raises(NoSoundError, match="sample 3 is not finite"):
        spoof_of(source, silent)


def vocoder_named(name: str) -> NamedVocoder:
    request = read_command(["--make_spoofs", "x", "--vocoders", name])
    assert isinstance(request, MakeSpoofs)
    return find_vocoders(request)[0]


def needs_its_package(name: str) -> None:
    if name == "world":
        pytest.importorskip("pyworld", reason="needs requirements-vocoder.txt")


@pytest.mark.parametrize("name", SIGNAL_VOCODERS)
def test_a_vocoder_copies_speech_of_any_length_by_the_name_of_the_file(name: str) -> None:
    needs_its_package(name)
    vocoder = vocoder_named(name)
    for samples in (1, 100, 3_000, 20_000):
        speech = babble(2)[:samples, 0].astype(np.float32)
        copy = vocoder.copy(speech, "train/u")
        assert copy.shape == speech.shape and copy.dtype == np.float32 and np.isfinite(copy).all()
        assert np.array_equal(copy, vocoder.copy(speech, "train/u"))
    assert not np.array_equal(copy, speech)
    draws = name in ("griffin_lim", "lpc")
    assert np.array_equal(copy, vocoder.copy(speech, "train/v")) != draws


@pytest.mark.parametrize("name", ["griffin_lim", "world", "sinusoidal"])
def test_a_copy_has_the_spectrum_of_its_source(name: str) -> None:
    """A tone with 12 harmonics keeps them: their magnitudes by 500 samples correlate."""
    needs_its_package(name)
    time = np.arange(16_000) / 16_000
    speech = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 13)) * (0.2 + 0.1 * np.sin(20 * time))
    copy = vocoder_named(name).copy(speech.astype(np.float32), "u")
    one, other = (np.abs(np.fft.rfft(sound.reshape(-1, 500))).ravel() for sound in (speech, copy.astype(np.float64)))
    assert np.corrcoef(one, other)[0, 1] > 0.9


def test_a_long_file_is_made_in_pieces_that_are_faded_into_each_other() -> None:
    speech = np.random.default_rng(1).uniform(-1, 1, 2 * PIECE_SAMPLES + 5).astype(np.float32)
    given: list[tuple[int, int]] = []

    def same(piece: np.ndarray, number: int) -> np.ndarray:
        given.append((number, piece.size))
        return piece

    assert np.allclose(in_pieces(speech, same), speech, atol=1e-6)
    assert given == [(0, PIECE_SAMPLES), (1, PIECE_SAMPLES), (2, 2 * FADE_SAMPLES + 5)]
    assert in_pieces(speech[:7], same).size == 7


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(UserError, match=r"--vocoders world needs the package pyworld .*: pip install pyworld, or pip"):
        vocoder_named("world")


def test_torch_is_not_imported_for_vocoders_without_weights() -> None:
    code = "import sys, training.spoofs.making; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
