"""Formats that libsndfile does not know come through ffmpeg, for which a small script stands here."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import utils.audio.ffmpeg as through_ffmpeg
from main import main
from tests.small_audio import write_sounds
from utils.audio.checking import AudioFault, check_audio
from utils.audio.finding import audio_below
from utils.audio.reading import UnreadableAudioError, open_audio
from utils.audio.waveforms import read_waveform
from utils.audio.windows import WindowedAudio, expected_windows
from utils.corpora import find_corpus
from utils.errors import UserError

# What the file says is what happens: "rate channels samples", or a word.
FAKE = """#!{python} -SE
import os, struct, sys, time
asked = sys.argv[1:]
assert asked[asked.index("-f") + 1] == "wav" and asked[asked.index("-c:a") + 1] == "pcm_f32le" and asked[-1] == "pipe:1"
assert asked[asked.index("-protocol_whitelist") + 1] == "file" and "-nostdin" in asked
source = asked[asked.index("-i") + 1]
assert source.startswith("file:")
text = open(source[5:], "rb").read().decode()
open(os.environ["FAKE_PIDS"], "a").write(str(os.getpid()) + chr(10))
word, _, _ = text.partition(" ")
if word == "broken":
    sys.stderr.write("moov atom not found" + chr(10) + "Invalid data" + chr(10))
    sys.exit(1)
if word == "hangs":
    time.sleep(600)
if word == "floods":
    sys.stderr.write("x" * 2_000_000)
    text = "16000 1 100"
rate, channels, samples = (32000, 2, 10**9) if word == "endless" else map(int, text.split()[:3])
form = struct.pack("<HHIIHH", 3, channels, rate, rate * 4 * channels, 4 * channels, 32)
out = sys.stdout.buffer
out.write(b"RIFF" + b"\\xff" * 4 + b"WAVEfmt " + struct.pack("<I", 16) + form)
out.write(b"LIST" + struct.pack("<I", 6) + b"INFO  " + b"data" + b"\\xff" * 4)
done = 0
while done < samples * channels:
    count = min(4096, samples * channels - done)
    out.write(struct.pack("<%df" % count, *(((done + i) % 1000) / 2000 for i in range(count))))
    done += count
out.flush()
if text.endswith("odd"):
    sys.stderr.write("Error while decoding stream #0:0" + chr(10))
if text.endswith("fails"):
    sys.exit(187)
"""


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the script on the path; the file that is returned lists the processes there were."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "ffmpeg"
    script.write_text(FAKE.format(python=os.path.realpath(sys.executable)))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_PIDS", str(tmp_path / "pids"))
    return tmp_path / "pids"


def expected(samples: int, channels: int) -> np.ndarray:
    return (np.arange(samples * channels) % 1000 / 2000).astype(np.float32).reshape(-1, channels)


def is_gone(pids: Path) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split())


def test_all_that_ffmpeg_gives_is_read_in_blocks(tmp_path: Path, ffmpeg: Path) -> None:
    path = tmp_path / "-a:b|c.M4A"
    path.write_text("44100 2 100000")
    with open_audio(path) as file:
        assert (file.sample_rate_hz, file.channels, file.format) == (44_100, 2, "M4A FLOAT")
        blocks = list(file.blocks(30_001))
    assert [len(block) for block in blocks] == [30_001] * 3 + [9_997]
    np.testing.assert_array_equal(np.concatenate(blocks), expected(100_000, 2))
    soundfile.write(tmp_path / "a.wav", expected(100_000, 2), 44_100, subtype="FLOAT")
    np.testing.assert_array_equal(read_waveform(path), read_waveform(tmp_path / "a.wav"))
    assert check_audio(path).fault is None and check_audio(path).samples == 100_000
    audio = WindowedAudio(path)
    assert len(list(audio)) == 1 and audio.doubt is None and expected_windows(path) == 1
    assert is_gone(ffmpeg)


def test_what_ffmpeg_complains_of_is_told_and_what_it_refuses_is_refused_with_its_words(
    tmp_path: Path, ffmpeg: Path
) -> None:
    (tmp_path / "a.wma").write_text("16000 1 500 odd")
    checked = check_audio(tmp_path / "a.wma")
    assert (checked.fault, checked.samples) == (AudioFault.DAMAGED, 500)
    assert checked.reason == "the decoder says: Error while decoding stream #0:0"
    for content, reason in {
        "broken": "ffmpeg: moov atom not found",
        "16000 1 500 fails": "ffmpeg: exit code 187",
        "16000 1 0": "it holds no samples",
        "0 1 100": "a sample rate of 0 Hz is none of audio",
        "16000 0 100": "it has 0 channels",
    }.items():
        (tmp_path / "b.amr").write_text(content)
        with pytest.raises(UnreadableAudioError) as refused:
            read_waveform(tmp_path / "b.amr")
        assert refused.value.reason == reason
    (tmp_path / "c.aac").write_text("floods")
    assert read_waveform(tmp_path / "c.aac").size == 100
    assert is_gone(ffmpeg)


def test_ffmpeg_that_gives_nothing_is_given_up_and_one_that_never_ends_is_ended_with_the_reading(
    tmp_path: Path, ffmpeg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(through_ffmpeg, "PATIENCE_S", 0.3)
    (tmp_path / "a.webm").write_text("hangs")
    began = time.monotonic()
    assert check_audio(tmp_path / "a.webm").reason == "ffmpeg gave nothing for 0.3 s"
    assert time.monotonic() - began < 60
    monkeypatch.setattr(through_ffmpeg, "PATIENCE_S", 60.0)
    (tmp_path / "b.mp4").write_text("endless")
    windows = iter(WindowedAudio(tmp_path / "b.mp4"))
    assert next(windows).start == 0
    assert not is_gone(ffmpeg)
    windows.close()  # type: ignore[attr-defined]
    assert is_gone(ffmpeg)


def class_folders(folder: Path) -> Path:
    """Make a corpus of class folders with 12 WAV files and one M4A file of each class."""
    write_sounds(folder, [f"{label}/{number}{label[0]}.wav" for label in ("bonafide", "spoof") for number in range(6)])
    for name in ("bonafide/b.m4a", "spoof/A1/s.m4a"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("16000 1 8000")
    return folder


@pytest.mark.parametrize("is_there", [True, False])
def test_a_corpus_has_the_files_that_need_ffmpeg_or_says_that_they_were_passed_over(
    is_there: bool, tmp_path: Path, ffmpeg: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = class_folders(tmp_path / "corpus")
    if not is_there:
        monkeypatch.setenv("PATH", "/nowhere")
    assert main(["--check_data", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    how = ".m4a is read through ffmpeg, which is not installed: install it, or convert: ffmpeg -i NAME.m4a NAME.flac"
    passed_over = f"Passed over: 2 files of formats that cannot be read here (b.m4a, s.m4a): {how}"
    assert (passed_over in said) is not is_there
    assert f"Nothing stands in the way of training: {10 if is_there else 8} train" in said
    assert len(audio_below(folder).passed_over) == (0 if is_there else 2)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_table_that_names_files_that_need_ffmpeg_is_refused_for_that_and_not_for_missing_files(
    is_there: bool, tmp_path: Path, ffmpeg: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = class_folders(tmp_path / "corpus")
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.*"))]
    table = "".join(f"{name},{name.split('/')[0]}\n" for name in names)
    for part in ("train", "dev"):
        (folder / f"{part}.csv").write_text("path,label\n" + table)
    if not is_there:
        monkeypatch.setenv("PATH", "/nowhere")
    code = main(["--check_data", str(folder), "--protocols_path", str(folder / "train.csv")])
    assert code == (0 if is_there else 1)
    assert ("unreadable audio files (" in capsys.readouterr().out) is not is_there
    if is_there:
        assert len(find_corpus(folder).train) == 14
        return
    with pytest.raises(UserError, match="2 of 14 utterances are in formats that cannot be read here"):
        find_corpus(folder)
