"""Finds the audio file of each utterance from one listing of each folder, since asking for 600,000 files takes long."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.audio.finding import FFMPEG_SUFFIXES, READ_SUFFIXES, bare_name


@dataclass(frozen=True)
class _Listing:
    """The audio files of a folder, all of them and, but for hidden ones, by the name before the suffix.

    Those that need ffmpeg are among them where there is none, too: they are refused for that and not as missing.
    `error` says why it cannot be listed, "" where it can.
    """

    names: frozenset[str] = frozenset()
    by_stem: dict[str, str] = field(default_factory=dict)
    error: str = ""


class AudioFiles:
    """The audio below some folders, the first of which that has an utterance decides."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [str(folder) for folder in folders]
        self._listings: dict[str, _Listing] = {}

    def find(self, name: str) -> Path | None:
        """Return the file of an utterance, written with or without a suffix, perhaps with folders before it.

        Folders may be divided as on Windows, where there is no such file here.
        """
        below, slash, last = name.rpartition("/")
        for folder in self._folders:
            where = os.path.join(folder, below + slash) if slash else folder  # noqa: PTH118 - faster, and "/" wins
            listing = self._listing(where)
            found = last if last in listing.names else listing.by_stem.get(bare_name(last)) or listing.by_stem.get(last)
            if found:
                return Path(where, found)
        return self.find(name.replace("\\", "/")) if "\\" in name else None

    def find_all(self, names: Sequence[str]) -> list[Path | None]:
        """Return the file of each utterance, None where there is none."""
        return [self.find(name) for name in names]

    def unlistable(self) -> tuple[Path, str] | None:
        """Return the first folder and why it cannot be listed, if none of the folders can."""
        found = [(folder, self._listing(folder).error) for folder in self._folders]
        return (Path(found[0][0]), found[0][1]) if all(error for _, error in found) else None

    def listed(self) -> set[str]:
        """Return the paths of all audio files in the folders that were listed, without hidden ones."""
        return {
            os.path.join(folder, name)  # noqa: PTH118 - as below
            for folder, listing in self._listings.items()
            for name in listing.names
            if not name.startswith(".")
        }

    def _listing(self, folder: str) -> _Listing:
        found = self._listings.get(folder)
        if found is None:
            found = self._listings[folder] = _list_audio(folder)
        return found


def _list_audio(folder: str) -> _Listing:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        return _Listing(error=error.strerror or str(error))
    rank = {suffix: number for number, suffix in enumerate(READ_SUFFIXES + FFMPEG_SUFFIXES)}
    audio = [(rank[suffix], name) for name in names if (suffix := _suffix(name)) in rank]
    # The one that is to be found is put in last.
    by_stem = {bare_name(name): name for _, name in sorted(audio, reverse=True) if name[0] != "."}
    return _Listing(frozenset(name for _, name in audio), by_stem)


def _suffix(name: str) -> str:
    """Return the suffix of a file in lower case; a Path for each of 600,000 names would cost seconds."""
    return name[name.rfind(".") :].lower() if "." in name else ""
