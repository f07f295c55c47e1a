"""What --check_data does: reads the protocols and listens to every audio file of a corpus, and notes what it finds."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from training.data.database import database_folder, demo_to_make
from training.settings.data import DEMO_DATABASE
from utils.audio.checking import CheckedAudio, check_audio
from utils.corpora.finding import find_all_layouts
from utils.corpora.parts import FoundCorpus, PartSource
from utils.corpora.places import CorpusPlace
from utils.corpora.trials import ScannedProtocol
from utils.corpora.utterance_files import AudioFiles
from utils.ending import stop_of
from utils.errors import UserError
from utils.progress import progress
from utils.waiting import Helpers, wait_for

_FILES_OF_A_TASK = 16
_TASKS_AT_ONCE = 256  # a task for each of 600,000 files at once would take a gigabyte


@dataclass(frozen=True)
class _LocatedPart:
    """A part whose protocol was read and whose folders were listed; nothing was listened to yet."""

    source: PartSource
    scanned: ScannedProtocol
    paths: tuple[Path | None, ...]
    listed: set[str]
    folder_error: str


@dataclass(frozen=True, eq=False)
class CheckedPart:
    """All that was found of one part; `audio` belongs to `paths`, which are None for files that do not exist.

    `num_unnamed` counts the audio files in its folders that no protocol of the corpus names.
    """

    source: PartSource
    scanned: ScannedProtocol
    paths: tuple[Path | None, ...]
    audio: tuple[CheckedAudio | None, ...]
    num_unnamed: int
    folder_error: str = ""

    @property
    def missing(self) -> list[str]:
        """The utterances that have no file."""
        return [name for name, path in zip(self.scanned.names, self.paths, strict=True) if path is None]


@dataclass(frozen=True)
class CheckedCorpus:
    """A corpus and its parts, as they were found."""

    found: FoundCorpus
    parts: tuple[CheckedPart, ...]


def demo_corpus() -> Path:
    """Return where the demo corpus is; raises UserError where it is not made yet."""
    if location := demo_to_make(DEMO_DATABASE):
        raise UserError(
            f"the demo corpus is not made yet, the first training makes it in {location}: to check a corpus of yours, "
            "pass --check_data PATH"
        )
    return database_folder(DEMO_DATABASE)


def check_data(place: CorpusPlace, num_threads: int) -> list[CheckedCorpus]:
    """Check every corpus in the database of `place`; shows how it goes on, on stderr.

    Raises UserError where none is recognised, and, with the exit code of a stop, after Ctrl-C or SIGTERM.
    """
    return [_check_corpus(found, num_threads) for found in find_all_layouts(*place)]


def _check_corpus(found: FoundCorpus, num_threads: int) -> CheckedCorpus:
    scans = [part.scan() for part in found.parts]
    located = [_locate(part, scanned) for part, scanned in zip(found.parts, scans, strict=True)]
    named = {str(path) for part in located for path in part.paths if path is not None}
    return CheckedCorpus(found, tuple(_check_part(part, named, num_threads) for part in located))


def _locate(source: PartSource, scanned: ScannedProtocol) -> _LocatedPart:
    audio = AudioFiles(source.audio_folders)
    unlistable = audio.unlistable()
    paths = tuple(audio.find_all(scanned.names))
    return _LocatedPart(
        source, scanned, paths, audio.listed(), f"{unlistable[0]} ({unlistable[1]})" if unlistable else ""
    )


def _check_part(part: _LocatedPart, named: Set[str], num_threads: int) -> CheckedPart:
    checked = iter(_listen(part.source.name, [path for path in part.paths if path is not None], num_threads))
    return CheckedPart(
        part.source,
        part.scanned,
        part.paths,
        audio=tuple(next(checked) if path is not None else None for path in part.paths),
        num_unnamed=len(part.listed - named),
        folder_error=part.folder_error,
    )


def _listen(name: str, paths: Sequence[Path], num_threads: int) -> list[CheckedAudio]:
    checked: list[CheckedAudio] = []
    helpers = None
    try:
        helpers = Helpers(num_threads, "checking")  # libsndfile decodes without the interpreter's lock
        with progress(f"checking {name}", len(paths), unit="files") as shown:
            for tasks in _tasks(paths):
                under_way = [(task, helpers.do(task)) for task in tasks]
                for task, found in under_way:
                    part = wait_for(found, task.what_is_awaited)
                    checked += part
                    for _ in part:
                        shown.advance(utterances=1)
    except KeyboardInterrupt as stopped:
        stop = stop_of(stopped)
        by = "Ctrl-C" if stop is signal.SIGINT else stop.name
        raise UserError(
            f"--check_data was stopped by {by} in {name}, after {len(checked):,} of its {len(paths):,} files: "
            "nothing was changed",
            128 + stop,
        ) from None
    finally:
        if helpers:
            helpers.close()
    return checked


class _Task:
    """Some files to be listened to, and the one that is being read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._read = paths[0]

    def __call__(self, _: int) -> list[CheckedAudio]:
        return [self._check(path) for path in self._paths]

    def _check(self, path: Path) -> CheckedAudio:
        self._read = path
        return check_audio(path)

    def what_is_awaited(self) -> str:
        return f"data: reading {self._read}"


def _tasks(paths: Sequence[Path]) -> Iterator[list[_Task]]:
    size = _FILES_OF_A_TASK * _TASKS_AT_ONCE
    for first in range(0, len(paths), size):
        some = paths[first : first + size]
        yield [_Task(some[at : at + _FILES_OF_A_TASK]) for at in range(0, len(some), _FILES_OF_A_TASK)]
