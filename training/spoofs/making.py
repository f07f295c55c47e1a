"""Makes the spoofs of a corpus, file by file: what is there is left, and what another process makes is waited for.

Each file gets its name when it is whole (utils/atomic_files.py), so that a process that is stopped or killed at any
moment leaves nothing to undo: the same command goes on. An utterance belongs to one process at a time.
"""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.settings.requests import MakeSpoofs
from training.spoofs.claims import Claims
from training.spoofs.corpus import SourceCorpus, open_sources
from training.spoofs.folder import Made, begun, finish, made_of
from training.spoofs.layout import Utterance
from training.spoofs.sounds import NoSoundError, Source, read_source, spoof_of, suffix_of_spoof
from training.spoofs.spectrum import with_spectrum_of
from training.spoofs.vocoders import NamedVocoder, find_vocoders
from utils.atomic_files import atomic_write, make_folder
from utils.audio.reading import UnreadableAudioError
from utils.audio.writing import written_format
from utils.console import say
from utils.ending import stop_of
from utils.errors import EXIT_FAILURE, UserError
from utils.progress import Progress, progress
from utils.regular_files import open_regular
from utils.waiting import Helpers, wait_for

_QUIETER_DB = 0.1


@dataclass
class Told:
    """What is to be told at the end of what this process made: spoofs in other formats, and quieter ones."""

    made: int = 0
    faults: list[str] = field(default_factory=list)
    other_formats: Counter[str] = field(default_factory=Counter)
    quieter_db: list[float] = field(default_factory=list)


def make_spoofs(request: MakeSpoofs) -> int:
    """Make all that is not there yet and return the exit code: 1 if an utterance could not be copied.

    Raises UserError for what cannot be begun, for a disk that refuses, and, with its exit code, for a stop.
    """
    vocoders = find_vocoders(request)
    sources = open_sources(request.options, request.folder)
    names = [vocoder.name for vocoder in vocoders]
    is_trained = any(vocoder.is_trained for vocoder in vocoders)
    now = Made.of(sources.identity, vocoders, _own_threads() if is_trained else 1)
    with begun(request.folder, now) as (claims, made):
        if is_trained:
            _prepare_torch(made.num_threads)
        maker = _Maker(request.folder, vocoders, Told())
        total = len(sources.utterances) * (1 + len(vocoders))
        say(_head(sources, names, request.folder, total))
        for note in sources.notes:
            say(note)
        try:
            with progress("spoofs", total, unit="files") as shown:
                _make_all(maker, sources.utterances, claims, shown)
            tables = finish(request.folder, claims, sources.utterances, names)
        except KeyboardInterrupt as stopped:
            stop = stop_of(stopped)
            by = "Ctrl-C" if stop is signal.SIGINT else stop.name
            raise UserError(
                f"--make_spoofs was stopped by {by} after {maker.told.made:,} files: the same command goes on",
                128 + stop,
            ) from None
        except OSError as error:
            raise UserError(
                f"--make_spoofs {request.folder} cannot be written ({error.strerror or error}): what is made stays, "
                "and the same command goes on"
            ) from error
        finally:
            maker.close()
    for line in _tail(request.folder, tables, maker.told):
        say(line)
    return EXIT_FAILURE if maker.told.faults else 0


def _make_all(maker: _Maker, utterances: Sequence[Utterance], claims: Claims, shown: Progress) -> None:
    """Make each utterance, those last that another process has, and whatever that one has left."""
    others: list[int] = []
    for number, utterance in enumerate(utterances, start=1):
        if maker.is_made(utterance):
            shown.advance(utterances=0, batches=maker.files_each)
        elif claims.take(number):
            maker.make(utterance, shown)
            claims.give_back(number)
        else:
            others.append(number)
    for number in others:
        if not maker.is_made(utterances[number - 1]):
            claims.wait_for(number, str(utterances[number - 1].path))
            maker.make(utterances[number - 1], shown)
            claims.give_back(number)
        else:
            shown.advance(utterances=0, batches=maker.files_each)


class _Maker:
    """Makes the files of an utterance that are missing, and keeps what is to be told."""

    def __init__(self, folder: Path, vocoders: Sequence[NamedVocoder], told: Told) -> None:
        self.told = told
        self.files_each = 1 + len(vocoders)
        self._folder = folder
        self._vocoders = vocoders
        self._folders_made: set[Path] = set()
        self._reading = Helpers(1, "reading")

    def close(self) -> None:
        """Let go of the thread that reads."""
        self._reading.close()

    def is_made(self, utterance: Utterance) -> bool:
        """Whether all files of an utterance are there."""
        return self._is_copied(utterance) and not self._missing(utterance)

    def _is_copied(self, utterance: Utterance) -> bool:
        """Whether the bona fide file is there, as large as its source is now."""
        try:
            return (self._folder / utterance.bona_fide).stat().st_size == utterance.path.stat().st_size
        except FileNotFoundError:
            return False

    def _missing(self, utterance: Utterance) -> list[NamedVocoder]:
        return [vocoder for vocoder in self._vocoders if not made_of(self._folder, utterance, vocoder.name)]

    def make(self, utterance: Utterance, shown: Progress) -> None:
        """Make what is missing; an utterance that cannot be read is told, and nothing is made of it."""
        before = self.told.made
        try:
            source = wait_for(
                self._reading.do(lambda _: read_source(utterance.path)), lambda: f"data: reading {utterance.path}"
            )
        except UnreadableAudioError as error:
            self._tell(str(error), shown)
        else:
            self._make_from(source, utterance, shown)
        made = self.told.made - before
        shown.advance(utterances=made, batches=self.files_each)

    def _make_from(self, source: Source, utterance: Utterance, shown: Progress) -> None:
        copy = self._folder / utterance.bona_fide
        if not copy.exists():
            self._write(utterance.bona_fide, lambda path: _copy(utterance.path, path))
        elif not self._is_copied(utterance):
            self._tell(
                f"{utterance.path} is another file than {copy} was copied from: make its spoofs elsewhere", shown
            )
            return
        for vocoder in self._missing(utterance):
            self._make_spoof(utterance, source, vocoder, shown)

    def _make_spoof(self, utterance: Utterance, source: Source, vocoder: NamedVocoder, shown: Progress) -> None:
        try:
            copy = vocoder.copy(source.waveform, f"{utterance.part}/{utterance.name}")
            spoof = spoof_of(source, with_spectrum_of(source.waveform, copy))
        except NoSoundError as error:
            self._tell(f"{vocoder.name} made no speech of {utterance.path} ({error}): pass another vocoder", shown)
            return
        suffix = suffix_of_spoof(utterance.path, source.format, source.sample_rate_hz)
        name = next(path for path in utterance.spoofs(vocoder.name) if path.endswith(suffix))
        self._write(name, lambda path: _put(spoof.content, path))
        written = written_format(source.format, source.sample_rate_hz)
        if written != source.format:
            self.told.other_formats[f"{written} in the place of {source.format}"] += 1
        if spoof.quieter_db > _QUIETER_DB:
            self.told.quieter_db.append(spoof.quieter_db)

    def _write(self, name: str, write: Callable[[Path], None]) -> None:
        path = self._folder / name
        if path.parent not in self._folders_made:
            make_folder(path.parent)
            self._folders_made.add(path.parent)
        write(path)
        self.told.made += 1

    def _tell(self, fault: str, shown: Progress) -> None:
        self.told.faults.append(fault)
        shown.make_way()
        say(f"[ERROR] {fault}")


def _put(content: bytes, path: Path) -> None:
    with atomic_write(path) as file:
        file.write(content)


def _copy(source: Path, path: Path) -> None:
    with open_regular(source) as original, atomic_write(path) as copy:
        shutil.copyfileobj(original, copy)


def _own_threads() -> int:
    from utils.machine import own_threads  # noqa: PLC0415  (imports torch)

    return own_threads()


def _prepare_torch(num_threads: int) -> None:
    from utils.machine import make_deterministic  # noqa: PLC0415  (imports torch)

    make_deterministic(num_threads)


def _head(sources: SourceCorpus, names: Sequence[str], folder: Path, total: int) -> str:
    parts = Counter(one.part for one in sources.utterances)
    counts = ", ".join(f"{count:,} {name}" for name, count in parts.items())
    return (
        f"Bona fide speech of {sources.folder} ({sources.layout} layout): {counts} utterances\n"
        f"Spoofs by {', '.join(names)}: {total:,} files in {folder}"
    )


def _tail(folder: Path, tables: Sequence[str], told: Told) -> list[str]:
    lines = []
    for change, count in told.other_formats.items():
        lines.append(
            f"[NOTE] The format of a source cannot be written, so that its spoofs have another: {count:,} {change}"
        )
    if told.quieter_db:
        lines.append(
            f"[NOTE] Quieter than their source, by up to {max(told.quieter_db):.1f} dB, since they would clip at its "
            f"level: {len(told.quieter_db):,} of the spoofs made now"
        )
    if told.faults:
        lines.append(f"Not made, as told above: {len(told.faults):,}; the tables name all others")
    is_one = f"is a corpus: {', '.join(tables)}" if tables else "holds nothing that could be read"
    lines.append(f"{told.made:,} files made; {folder} {is_one}")
    return lines
