"""Which files are audio, wherever the program asks: own recordings, corpora, what an export is checked with."""

from __future__ import annotations

from pathlib import Path

from tests.test_architecture import SOURCES, module_name
from utils.audio.finding import FFMPEG_SUFFIXES, READ_SUFFIXES, files_below
from utils.corpora.utterance_files import AudioFiles


def test_files_below_a_folder_come_sorted_with_their_folder_and_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/2.flac", "b/1.wav", "a/deep/3.txt", ".hidden/4.wav", "b/._1.wav", "5.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [(str(Path(parent).relative_to(tmp_path)), names) for parent, names in files_below(tmp_path)]
    assert found == [(".", ["5.wav"]), ("a", []), ("a/deep", ["3.txt"]), ("b", ["1.wav", "2.flac"])]


def test_an_utterance_is_found_whatever_suffix_its_file_and_its_name_in_the_protocol_have(tmp_path: Path) -> None:
    for name in ("a.aiff", "b.wav", "b.flac", "c.flac", "d.m4a"):
        (tmp_path / name).touch()
    found = AudioFiles([tmp_path]).find_all(["a", "b", "b.wav", "c.m4a", "d", "d.m4a"])
    assert [path and path.name for path in found] == ["a.aiff", "b.flac", "b.wav", "c.flac", "d.m4a", "d.m4a"]


def test_no_suffix_is_both_read_and_not_read() -> None:
    assert len({*READ_SUFFIXES, *FFMPEG_SUFFIXES}) == len(READ_SUFFIXES) + len(FFMPEG_SUFFIXES)


def test_only_one_file_lists_the_suffixes_of_audio() -> None:
    lists = {module_name(path) for path in SOURCES if '".flac"' in path.read_text(encoding="utf-8")}
    assert lists == {"utils.audio.finding"}
