"""Finds the audio files that somebody named: files as they are, folders with all the audio in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from utils.errors import UserError
from utils.terminal_text import printable
from utils.text_tables import few

# fmt: off
READ_SUFFIXES = frozenset((
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif", ".aiff", ".aifc", ".au", ".snd",
    ".caf", ".w64", ".rf64", ".sph", ".nist", ".voc",
))
"""What libsndfile reads and people keep speech in; in a folder other files are passed over."""
UNREAD_SUFFIXES = frozenset((
    ".m4a", ".aac", ".mp4", ".m4b", ".wma", ".amr", ".webm", ".mka", ".mkv", ".mov", ".ac3", ".ape", ".wv", ".3gp",
))
# fmt: on
"""Audio, or video with it, that libsndfile does not read."""


@dataclass(frozen=True)
class FoundAudio:
    """The `files` to go through, in order, and those audio files in folders whose format cannot be read.

    A path among the files need not be one of a file: what was named by hand and is none is kept, to be told of.
    """

    files: tuple[Path, ...]
    passed_over: tuple[Path, ...]


def find_audio_files(places: Sequence[Path], flag: str) -> FoundAudio:
    """Return files in the order given, those of a folder and of the folders in it sorted, each once; no hidden ones.

    Links to folders are not followed. Raises UserError that begins with `flag` where there is no file at all, and where
    a folder cannot be looked into.
    """
    files: dict[str, Path] = {}
    passed_over: dict[str, Path] = {}
    for place in places:
        in_folder = _files_below(place) if place.is_dir() else []
        found = [path for path in in_folder if path.suffix.lower() in READ_SUFFIXES]
        for path in found if place.is_dir() else [place]:
            files.setdefault(os.path.abspath(path), path)  # noqa: PTH100  (resolve() would follow links)
        for path in in_folder:
            if path.suffix.lower() in UNREAD_SUFFIXES:
                passed_over.setdefault(os.path.abspath(path), path)  # noqa: PTH100
        if place.is_dir() and not found:
            files.setdefault(os.path.abspath(place), place)  # noqa: PTH100
    if not any(path.is_file() for path in files.values()):
        raise UserError(_nothing(flag, places))
    return FoundAudio(tuple(files.values()), tuple(passed_over.values()))


def _files_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> NoReturn:
        raise UserError(f"{error.filename} cannot be looked into ({error.strerror}): pass another folder") from error

    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _nothing(flag: str, places: Sequence[Path]) -> str:
    place = places[0]
    if not place.exists():
        more = f", nor are the {len(places) - 1} others audio files" if len(places) > 1 else ""
        return f"{flag} {printable(str(place))}: there is no such file or folder{more}: check the path"
    if not place.is_dir():
        return f"{flag} {printable(str(place))} is no regular file: pass an audio file or a folder"
    names = [printable(path.name) for path in _files_below(place)]
    holds = f"{len(names):,} other files ({few(names)})" if names else "no file"
    return f"{flag} found no audio file: {printable(str(place))} holds {holds}; WAV, FLAC, MP3, Ogg and AIFF are read"
