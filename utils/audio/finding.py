"""Which files are audio: by their suffix, in a folder and those below it, and of the places that somebody named."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.folder_walk import FolderWalk
from utils.terminal_text import printable
from utils.text_tables import few

# fmt: off
READ_SUFFIXES = (
    ".flac", ".wav", ".mp3", ".ogg", ".opus", ".wave", ".oga", ".mp2", ".aif", ".aiff", ".aifc", ".au", ".snd",
    ".caf", ".w64", ".rf64", ".sph", ".nist", ".voc",
)
"""What libsndfile reads and people keep speech in; of several files of one utterance, that of the first goes first."""
UNREAD_SUFFIXES = (
    ".m4a", ".aac", ".mp4", ".m4b", ".wma", ".amr", ".webm", ".mka", ".mkv", ".mov", ".ac3", ".ape", ".wv", ".3gp",
)
# fmt: on
"""Audio, or video with it, that libsndfile does not read."""


@dataclass(frozen=True)
class FoundAudio:
    """The `files` to go through, in order, and those audio files in folders whose format cannot be read.

    A path among the files need not be one of a file: what was named by hand and is none is kept, to be told of.
    """

    files: tuple[Path, ...]
    passed_over: tuple[Path, ...]


def is_audio(name: str) -> bool:
    """Return whether a file of this name is one that the reader of audio is for."""
    return name.lower().endswith(READ_SUFFIXES)


def bare_name(utterance: str) -> str:
    """Return an utterance without the suffix of an audio file: score files and keys differ in writing it.

    >>> bare_name("0.wav"), bare_name("LA_E_2834763")
    ('0', 'LA_E_2834763')
    """
    is_file = utterance.lower().endswith(READ_SUFFIXES + UNREAD_SUFFIXES)
    return utterance[: utterance.rfind(".")] if is_file else utterance


def files_below(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and every folder in it, sorted, each with the sorted names of its files; no hidden ones.

    Links to folders are followed last, each once. Raises UserError where a folder cannot be looked into.
    """
    for _, parent, names in FolderWalk([folder]):
        yield parent, names


def find_audio_files(places: Sequence[Path], flag: str) -> FoundAudio:
    """Return files in the order given, those of a folder (see `files_below`) sorted, each once.

    Raises UserError that begins with `flag` where there is no file at all, and where a folder cannot be looked into.
    """
    files: dict[str, Path] = {}
    passed_over: dict[str, Path] = {}
    for place in places:
        in_folder = _paths_below(place) if place.is_dir() else []
        found = [path for path in in_folder if is_audio(path.name)]
        for path in found if place.is_dir() else [place]:
            files.setdefault(os.path.abspath(path), path)  # noqa: PTH100  (resolve() would follow links)
        for path in in_folder:
            if path.name.lower().endswith(UNREAD_SUFFIXES):
                passed_over.setdefault(os.path.abspath(path), path)  # noqa: PTH100
        if place.is_dir() and not found:
            files.setdefault(os.path.abspath(place), place)  # noqa: PTH100
    if not any(path.is_file() for path in files.values()):
        raise UserError(_nothing(flag, places))
    return FoundAudio(tuple(files.values()), tuple(passed_over.values()))


def _paths_below(folder: Path) -> list[Path]:
    return sorted(Path(parent, name) for parent, names in files_below(folder) for name in names)


def _nothing(flag: str, places: Sequence[Path]) -> str:
    place = places[0]
    if not place.exists():
        more = f", nor are the {len(places) - 1} others audio files" if len(places) > 1 else ""
        return f"{flag} {printable(str(place))}: there is no such file or folder{more}: check the path"
    if not place.is_dir():
        return f"{flag} {printable(str(place))} is no regular file: pass an audio file or a folder"
    names = [printable(path.name) for path in _paths_below(place)]
    holds = f"{len(names):,} other files ({few(names)})" if names else "no file"
    return f"{flag} found no audio file: {printable(str(place))} holds {holds}; WAV, FLAC, MP3, Ogg and AIFF are read"
