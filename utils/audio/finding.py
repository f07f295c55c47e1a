"""Which files are audio: by their suffix, in a folder and those below it, and of the places that somebody named."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.folder_walk import FolderWalk
from utils.terminal_text import printable
from utils.text_tables import few

# fmt: off
FLAC_SUFFIX = ".flac"
READ_SUFFIXES = (
    FLAC_SUFFIX, ".wav", ".mp3", ".ogg", ".opus", ".wave", ".oga", ".mp2", ".aif", ".aiff", ".aifc", ".au", ".snd",
    ".caf", ".w64", ".rf64", ".sph", ".nist", ".voc",
)
"""What libsndfile reads and people keep speech in; of several files of one utterance, that of the first goes first."""
FFMPEG_SUFFIXES = (
    ".m4a", ".aac", ".mp4", ".m4b", ".wma", ".amr", ".webm", ".mka", ".mkv", ".mov", ".ac3", ".ape", ".wv", ".3gp",
    ".3g2", ".mpc", ".tta", ".ra", ".avi", ".weba", ".spx", ".shn", ".dsf", ".g722", ".asf", ".eac3", ".m4r",
)
# fmt: on
"""Audio, or video with it, that libsndfile does not read and ffmpeg does."""


@dataclass(frozen=True)
class FoundAudio:
    """The `files` to go through, in order, and what of the folders was left out, which a person must be told.

    `passed_over` are audio files that need ffmpeg where there is none; `not_followed` are links to folders that were
    gone through already, `dead` are links that lead nowhere. A path among the files need not be one of a file: what was
    named by hand and is none is kept, to be told of.
    """

    files: tuple[Path, ...]
    passed_over: tuple[Path, ...] = ()
    not_followed: tuple[Path, ...] = ()
    dead: tuple[Path, ...] = ()

    def left_out(self) -> list[str]:
        """Return a line for each kind of what was left out."""
        lines = [passed_over_text([path.name for path in self.passed_over])] if self.passed_over else []
        if self.not_followed:
            names = few([printable(str(path)) for path in self.not_followed])
            lines.append(f"Not followed: links to folders that were gone through already ({names})")
        if self.dead:
            names = few([printable(str(path)) for path in self.dead])
            lines.append(f"Missing: what was behind links that lead nowhere ({names})")
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


def is_passed_over(name: str) -> bool:
    """Return whether a file of this name is audio that cannot be read here, for want of ffmpeg."""
    return needs_ffmpeg(name) and not name.startswith(".") and ffmpeg_path() is None


def passed_over_text(names: Sequence[str]) -> str:
    """Return what is said of files (one at least) that are passed over, by their names.

    >>> passed_over_text(["a.amr"])[:82]
    'Passed over: 1 file of formats that cannot be read here (a.amr): .amr is read thro'
    """
    count = f"{len(names):,} file" if len(names) == 1 else f"{len(names):,} files"
    shown = few([printable(name) for name in names])
    return f"Passed over: {count} of formats that cannot be read here ({shown}): {without_ffmpeg(names[0])}"


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


def files_below(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and every folder in it, sorted, each with the sorted names of its files; no hidden ones.

    Links to folders are followed last, each once. Raises UserError where a folder cannot be looked into.
    """
    for _, parent, names in FolderWalk([folder]):
        yield parent, names


def audio_below(folder: Path) -> FoundAudio:
    """Return the audio files in a folder and those below it, sorted; raises UserError as `files_below` does."""
    walk = FolderWalk([folder])
    paths = sorted(Path(parent, name) for _, parent, names in walk for name in names)
    return FoundAudio(
        tuple(path for path in paths if is_audio(path.name)),
        tuple(path for path in paths if is_passed_over(path.name)),
        tuple(map(Path, walk.passed_over)),
        tuple(map(Path, walk.dead)),
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
    not_followed = tuple(path for one in found for path in one.not_followed)
    return FoundAudio(files, passed_over, not_followed, tuple(path for one in found for path in one.dead))


def _once(paths: Iterable[Path]) -> tuple[Path, ...]:
    kept: dict[str, Path] = {}
    for path in paths:
        kept.setdefault(os.path.abspath(path), path)  # noqa: PTH100  (resolve() would follow links)
    return tuple(kept.values())


def _nothing(flag: str, places: Sequence[Path]) -> str:
    place = places[0]
    if not place.exists():
        more = f", nor are the {len(places) - 1} others audio files" if len(places) > 1 else ""
        return f"{flag} {printable(str(place))}: there is no such file or folder{more}: check the path"
    if not place.is_dir():
        return f"{flag} {printable(str(place))} is no regular file: pass an audio file or a folder"
    names = [name for _, names in files_below(place) for name in names]
    passed_over = [name for name in names if is_passed_over(name)]
    holds = f"{len(names):,} other files ({few(list(map(printable, names)))})" if names else "no file"
    read = without_ffmpeg(passed_over[0]) if passed_over else "WAV, FLAC, MP3, Ogg and AIFF are read"
    return f"{flag} found no audio file: {printable(str(place))} holds {holds}; {read}"
