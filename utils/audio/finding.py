"""Which files are audio: by their suffix, in a folder and those below it, and of the places that somebody named."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from utils.errors import UserError
from utils.terminal_text import printable
from utils.text_tables import few

# fmt: off
READ_SUFFIXES = (
    ".flac", ".wav", ".mp3", ".ogg", ".opus", ".wave", ".oga", ".mp2", ".aif", ".aiff", ".aifc", ".au", ".snd",
    ".caf", ".w64", ".rf64", ".sph", ".nist", ".voc",
)
"""What libsndfile reads and people keep speech in; of several files of one utterance, that of the first goes first."""
FFMPEG_SUFFIXES = (
    ".m4a", ".aac", ".mp4", ".m4b", ".wma", ".amr", ".webm", ".mka", ".mkv", ".mov", ".ac3", ".ape", ".wv", ".3gp",
    ".3g2", ".mpc", ".tta", ".ra", ".avi", ".weba",
)
# fmt: on
"""Audio, or video with it, that libsndfile does not read and ffmpeg does."""


@dataclass(frozen=True)
class FoundAudio:
    """The `files` to go through, in order, and what of the folders was left out, which a person must be told.

    `passed_over` are audio files that need ffmpeg where there is none; `not_followed` are links to folders that were
    gone through already. A path among the files need not be one of a file: what was named by hand and is none is kept,
    to be told of.
    """

    files: tuple[Path, ...]
    passed_over: tuple[Path, ...] = ()
    not_followed: tuple[Path, ...] = ()

    def left_out(self) -> list[str]:
        """Return a line for each kind of what was left out."""
        lines = []
        if self.passed_over:
            names = few([printable(path.name) for path in self.passed_over])
            what = without_ffmpeg(self.passed_over[0].name)
            lines.append(
                f"Passed over: {_files(len(self.passed_over))} of formats that cannot be read here ({names}): {what}"
            )
        if self.not_followed:
            names = few([printable(str(path)) for path in self.not_followed])
            lines.append(f"Not followed: {names}: links to folders that were gone through already")
        return lines


def ffmpeg_path() -> str | None:
    """Return where ffmpeg is, None where it is not installed."""
    return _found_in(os.environ.get("PATH"))


@functools.cache
def _found_in(path: str | None) -> str | None:
    return shutil.which("ffmpeg", path=path)


def needs_ffmpeg(name: str) -> bool:
    """Return whether a file of this name is audio that goes through ffmpeg."""
    return name.lower().endswith(FFMPEG_SUFFIXES)


def without_ffmpeg(name: str) -> str:
    """Return what to do with a file of this name where there is no ffmpeg.

    >>> without_ffmpeg("a.M4A")
    '.m4a is read through ffmpeg, which is not installed: install it, or convert: ffmpeg -i NAME.m4a NAME.flac'
    """
    suffix = Path(name).suffix.lower()
    return (
        f"{suffix} is read through ffmpeg, which is not installed: install it, or convert: "
        f"ffmpeg -i NAME{suffix} NAME.flac"
    )


def is_audio(name: str) -> bool:
    """Return whether a file of this name can be read as audio here; a hidden one is none, whatever its suffix.

    macOS leaves a `._x.wav` with other things in it beside x.wav on disks of other systems.
    """
    is_read = name.lower().endswith(READ_SUFFIXES) or (needs_ffmpeg(name) and ffmpeg_path() is not None)
    return is_read and not name.startswith(".")


def bare_name(utterance: str) -> str:
    """Return an utterance without the suffix of an audio file: score files and keys differ in writing it.

    >>> bare_name("0.wav"), bare_name("LA_E_2834763")
    ('0', 'LA_E_2834763')
    """
    is_file = utterance.lower().endswith(READ_SUFFIXES + FFMPEG_SUFFIXES)
    return utterance[: utterance.rfind(".")] if is_file else utterance


def files_below(folder: Path, not_followed: list[Path] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and every folder in it, sorted, each with the sorted names of its files; no hidden ones.

    Links to folders are followed, after the folders that lie there, so that none is gone through twice: a link to one
    that was, or that leads back up, is added to `not_followed`. Raises UserError where a folder cannot be looked into.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        linked: list[str] = []
        for top in waiting:
            if _identity(top) in seen:
                if not_followed is not None:
                    not_followed.append(Path(top))
                continue
            yield from _real_files_below(top, seen, linked)
        waiting = linked


def _real_files_below(top: str, seen: set[tuple[int, int]], linked: list[str]) -> Iterator[tuple[str, list[str]]]:
    def refuse(error: OSError) -> NoReturn:
        raise UserError(f"{error.filename} cannot be looked into ({error.strerror}): pass another folder") from error

    for parent, folders, names in os.walk(top, onerror=refuse):
        visible = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in visible if os.path.islink(os.path.join(parent, name))]  # noqa: PTH114, PTH118
        folders[:] = [name for name in visible if name not in links]
        linked += [os.path.join(parent, name) for name in links]  # noqa: PTH118
        seen.add(_identity(parent))
        yield parent, sorted(name for name in names if not name.startswith("."))


def _identity(folder: str) -> tuple[int, int]:
    """Return what tells a folder from every other; of one that is not there, nothing that any has."""
    try:
        found = os.stat(folder)  # noqa: PTH116 - thousands of folders
    except OSError:
        return -1, -1
    return found.st_dev, found.st_ino


def audio_below(folder: Path) -> FoundAudio:
    """Return the audio files in a folder and those below it, sorted; raises UserError as `files_below` does."""
    not_followed: list[Path] = []
    paths = _paths_below(folder, not_followed)
    return FoundAudio(
        tuple(path for path in paths if is_audio(path.name)),
        tuple(path for path in paths if needs_ffmpeg(path.name) and not is_audio(path.name)),
        tuple(not_followed),
    )


def find_audio_files(places: Sequence[Path], flag: str) -> FoundAudio:
    """Return files in the order given, those of a folder (see `audio_below`), each once.

    Raises UserError that begins with `flag` where there is no file at all, and where a folder cannot be looked into.
    """
    found = [audio_below(place) if place.is_dir() else FoundAudio((place,)) for place in places]
    files = _once(path for place, one in zip(places, found, strict=True) for path in one.files or (place,))
    if not any(path.is_file() for path in files):
        raise UserError(_nothing(flag, places))
    passed_over = _once(path for one in found for path in one.passed_over)
    return FoundAudio(files, passed_over, tuple(path for one in found for path in one.not_followed))


def _once(paths: Iterable[Path]) -> tuple[Path, ...]:
    kept: dict[str, Path] = {}
    for path in paths:
        kept.setdefault(os.path.abspath(path), path)  # noqa: PTH100  (resolve() would follow links)
    return tuple(kept.values())


def _paths_below(folder: Path, not_followed: list[Path]) -> list[Path]:
    return sorted(Path(parent, name) for parent, names in files_below(folder, not_followed) for name in names)


def _nothing(flag: str, places: Sequence[Path]) -> str:
    place = places[0]
    if not place.exists():
        more = f", nor are the {len(places) - 1} others audio files" if len(places) > 1 else ""
        return f"{flag} {printable(str(place))}: there is no such file or folder{more}: check the path"
    if not place.is_dir():
        return f"{flag} {printable(str(place))} is no regular file: pass an audio file or a folder"
    passed_over = FoundAudio((), audio_below(place).passed_over).left_out()
    names = [printable(path.name) for path in _paths_below(place, [])]
    holds = f"{len(names):,} other files ({few(names)})" if names else "no file"
    read = passed_over[0] if passed_over else "WAV, FLAC, MP3, Ogg and AIFF are read"
    return f"{flag} found no audio file: {printable(str(place))} holds {holds}; {read}"


def _files(number: int) -> str:
    return f"{number:,} file" if number == 1 else f"{number:,} files"
