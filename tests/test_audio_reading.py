"""Every file that is no good audio is refused in one sentence by all that read audio, at once and in little memory."""

from __future__ import annotations

import ctypes
import os
import pickle
import socket
import struct
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.small_audio import write_sound
from tests.test_architecture import SOURCES, imported_by, module_name
from utils.audio.checking import AudioFault, check_audio
from utils.audio.complaints import Complaints
from utils.audio.reading import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, UnreadableAudioError, open_audio
from utils.audio.waveforms import read_waveform
from utils.audio.windows import WindowedAudio, expected_windows

Make = Callable[[Path], None]


def wav(*, rate_hz: int = 16_000, channels: int = 1, said: int | None = None, samples: int = 16_000) -> bytes:
    """A WAV file of 16 bits whose header says `said` bytes of samples; by the interface of IBM and Microsoft (1991)."""
    content = (np.sin(np.arange(samples)) * 9_000).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * 2 * channels % 2**32, 2 * channels, 16)
    data = struct.pack("<4sI", b"data", len(content) if said is None else said) + content
    return b"RIFF" + struct.pack("<I", 28 + len(data)) + b"WAVE" + struct.pack("<4sI", b"fmt ", 16) + form + data


def flac(said: int, samples: int = 20_000) -> Make:
    """A FLAC file whose header says so many samples (RFC 9639, section 8.2)."""

    def make(path: Path) -> None:
        soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, samples), 16_000, format="FLAC")
        content = bytearray(path.read_bytes())
        content[21] = (content[21] & 0xF0) | said >> 32
        content[22:26] = (said & 0xFFFFFFFF).to_bytes(4, "big")
        path.write_bytes(content)

    return make


def written(content: bytes) -> Make:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


def flipped(path: Path) -> None:
    """A FLAC file with one wrong bit within."""
    flac(20_000)(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def beginning_of_an_mp3(path: Path) -> None:
    write_sound(path, seconds=1)
    path.write_bytes(path.read_bytes()[:200])


def at_a_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


REFUSED: dict[str, tuple[str, Make, str]] = {
    "no file": ("a.wav", lambda path: None, "there is no such file"),
    "empty": ("a.wav", written(b""), "it is empty"),
    "text": ("a.flac", written(b"hello world, here is no sound"), "Format not recognised"),
    "no header": ("a.snd", written(b"hello world, here is no sound" * 100), "Format not recognised"),
    "raw samples": ("a.raw", written(bytes(100)), "raw samples do not say their rate and channels"),
    "folder": ("a.wav", Path.mkdir, "it is a folder, not a file"),
    "named pipe": ("a.wav", os.mkfifo, "it is a named pipe, not a file"),
    "device": ("a.wav", lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
    "socket": ("a.wav", at_a_socket, "it is a socket, not a file"),
    "link to itself": ("a.wav", a_link_to_itself, "Too many levels of symbolic links"),
    "bit flipped": ("a.flac", flipped, ""),
    "FLAC, no length": ("a.flac", flac(0), "its header does not say how long it is"),
    "FLAC, twice": ("a.flac", flac(40_000), "it holds 20,000 samples, and its header says 40,000"),
    "FLAC, most": ("a.flac", flac(2**36 - 1), "it holds 20,000 samples, and its header says 68,719,476,735"),
    "rate of 2^31": ("a.wav", written(wav(rate_hz=2**31 - 1)), "a sample rate of 2,147,483,647 Hz is none of audio"),
    "rate too high": ("a.wav", written(wav(rate_hz=HIGHEST_RATE_HZ + 1)), "a sample rate of 768,001 Hz is none"),
    "rate too low": ("a.wav", written(wav(rate_hz=LOWEST_RATE_HZ - 1)), "a sample rate of 999 Hz is none of audio"),
    "rate 0": ("a.wav", written(wav(rate_hz=0)), "its header has a sample rate or a number of channels of 0 or below"),
    "rate below 0": ("a.wav", written(wav(rate_hz=2**32 - 16_000)), "its header has a sample rate or a number of"),
    "MP3, its beginning": ("a.mp3", beginning_of_an_mp3, "no sound is found in it"),
    "no channel": ("a.wav", written(wav(channels=0)), ""),
    "many channels": ("a.wav", written(wav(channels=2_000)), ""),
    "no samples": ("a.wav", written(wav(samples=0)), "it holds no samples"),
    "length 0": ("a.wav", written(wav(said=0)), "its header gives length 0, while 32,000 bytes follow"),
    "AAC": ("a.m4a", written(b"....ftypM4A "), ".m4a is read through ffmpeg, which is not installed: install it, or"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_training_check_and_score_refuse_a_file_in_the_same_words(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing_is_installed"))
    name, make, words = REFUSED[kind]
    path = tmp_path / name
    make(path)
    with pytest.raises(UnreadableAudioError) as refused:
        read_waveform(path)
    reason = refused.value.reason
    assert reason.startswith(words) and len(reason) > 8
    assert (
        str(refused.value)
        == f"{path}: the audio file cannot be read ({reason}): make it again, or take it out of the data"
    )
    assert check_audio(path).fault is AudioFault.UNREADABLE and check_audio(path).reason == reason
    with pytest.raises(UnreadableAudioError) as unscored:
        list(WindowedAudio(path))
    assert unscored.value.reason == reason
    assert 1 <= expected_windows(path) < 1000


def gsm(path: Path) -> None:
    soundfile.write(path, 0.3 * np.sin(np.arange(8_000) / 5), 8_000, format="WAV", subtype="GSM610")


def loud(path: Path) -> None:
    soundfile.write(path, 10_503.4 * np.sin(np.arange(8_000) / 5), 16_000, format="WAV", subtype="FLOAT")


def damaged_mp3(path: Path) -> None:
    """An MP3 file with a bit changed in every kilobyte."""
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, 48_000), 16_000, format="MP3")
    content = bytearray(path.read_bytes())
    for at in range(500, len(content), 997):
        content[at] ^= 0x55
    path.write_bytes(content)


DOUBTFUL: dict[str, tuple[Make, AudioFault | None, str, int]] = {
    "GSM 6.10": (gsm, None, "", 16_640),
    "a pipe's length": (written(wav(said=2**32 - 1)), None, "", 16_000),
    "a chunk behind": (written(wav() + b"LIST" + struct.pack("<I", 9_000) + bytes(9_000)), None, "", 16_000),
    "a block of zeros behind": (written(wav() + bytes(4_000)), None, "", 16_000),
    "cut": (written(wav(said=64_000)), AudioFault.CUT, "16,000 samples, its header says 32,000", 16_000),
    "more behind": (
        written(wav(said=8_000)), AudioFault.LONGER, "its header says 4,000 samples, and 24,000 bytes follow", 4_000,
    ),
    "integer scale": (loud, AudioFault.LOUD, "a peak of 10,503 where full scale is 1", 8_000),
    "silence": (lambda path: soundfile.write(path, np.zeros(800), 16_000), AudioFault.SILENT, "every sample is 0", 800),
}  # fmt: skip


@pytest.mark.parametrize("kind", DOUBTFUL)
def test_what_can_be_read_and_is_odd_is_noted_and_read(kind: str, tmp_path: Path) -> None:
    make, fault, reason, samples = DOUBTFUL[kind]
    make(tmp_path / "a.wav")
    checked = check_audio(tmp_path / "a.wav")
    assert checked.fault is fault and checked.reason.startswith(reason)
    assert read_waveform(tmp_path / "a.wav").size == samples
    audio = WindowedAudio(tmp_path / "a.wav")
    assert len(list(audio)) == 1
    assert audio.doubt == (None if fault is None else (fault, checked.reason))


def test_all_of_a_good_file_is_read_whatever_the_size_of_the_blocks(tmp_path: Path) -> None:
    """Blocks of an MP3 file were others than the whole: the library around the decoder seeks after each."""
    sound = np.random.default_rng(2).uniform(-0.3, 0.3, (100_000, 2))
    for suffix in ("mp3", "flac", "ogg", "wav"):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, sound, 22_050)
        with soundfile.SoundFile(path) as plain:
            whole = plain.read(dtype="float32", always_2d=True)
        for frames in (2**20, 4_001):
            with open_audio(path) as file:
                blocks = list(file.blocks(frames))
            assert max(map(len, blocks)) <= frames
            np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_memory_follows_what_is_there_and_not_what_a_header_says(tmp_path: Path) -> None:
    """68,719,476,735 samples of a small file would take 256 GiB, and 32,768 of 1,024 channels at once 128 MiB."""
    flac(2**36 - 1, samples=2_000)(tmp_path / "a.flac")
    (tmp_path / "b.wav").write_bytes(wav(rate_hz=768_000, channels=1_024, said=2**26, samples=0))
    os.truncate(tmp_path / "b.wav", 44 + 2**26)  # all zeros, and no room on the disk
    reads: list[Callable[[Path], object]] = [check_audio, expected_windows, lambda path: list(WindowedAudio(path))]
    tracemalloc.start()
    try:
        for read in reads:
            for name in ("a.flac", "b.wav"):
                try:
                    read(tmp_path / name)
                except UnreadableAudioError:
                    assert name == "a.flac"
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()


def test_a_refusal_goes_from_one_process_to_another(tmp_path: Path) -> None:
    error = pickle.loads(pickle.dumps(UnreadableAudioError(tmp_path / "a.wav", "it is empty")))
    assert (str(tmp_path / "a.wav") in str(error), error.reason) == (True, "it is empty")


@pytest.mark.skipif(sys.platform != "linux", reason="stderr of C is caught on Linux alone")
def test_what_the_decoder_of_mp3_complains_of_is_told_with_the_name_and_not_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged_mp3(tmp_path / "bad.mp3")
    bad = check_audio(tmp_path / "bad.mp3")
    assert bad.fault is AudioFault.DAMAGED and bad.reason.startswith("the decoder says: ")
    assert read_waveform(tmp_path / "bad.mp3").size > 40_000
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


@pytest.mark.skipif(sys.platform != "linux", reason="stderr of C is caught on Linux alone")
def test_a_complaint_about_the_file_of_another_thread_is_not_told_of_this_one(tmp_path: Path) -> None:
    good, done = write_sound(tmp_path / "good.mp3", seconds=60), threading.Event()

    def complain() -> None:
        libc = ctypes.CDLL(None)
        while not done.is_set():
            with Complaints().listening():
                libc.fputs(b"error: of another file\n", ctypes.c_void_p.in_dll(libc, "stderr"))

    other = threading.Thread(target=complain)
    other.start()
    found = [check_audio(good).fault for _ in range(4)]
    done.set()
    other.join()
    assert found == [None] * 4


def test_only_the_reader_the_writer_and_the_maker_of_the_demo_corpus_know_the_library_of_audio() -> None:
    users = {module_name(path) for path in SOURCES if "soundfile" in imported_by(path)}
    assert users == {"utils.audio.reading", "utils.audio.writing", "utils.corpora.demo_corpus"}
