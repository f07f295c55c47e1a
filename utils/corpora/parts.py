"""A part of a corpus: where it is before it is read, and what it is after every file of it was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.audio.finding import ffmpeg_path, needs_ffmpeg, without_ffmpeg
from utils.corpora.trials import Protocol, ScannedProtocol
from utils.corpora.utterance_files import AudioFiles
from utils.errors import UserError
from utils.text_tables import few

PartName = Literal["train", "dev", "eval"]
WITHOUT_DATA = "--database_path demo tries the program without data"


@dataclass(frozen=True)
class CorpusPart:
    """The training, development or evaluation part: a protocol and, aligned with its trials, the audio files.

    `layout` names the corpus it is from; `subset` the trials that were chosen of an evaluation set, "all" for all.
    """

    name: PartName
    protocol: Protocol
    audio_paths: tuple[Path, ...]
    layout: str = ""
    subset: str = "all"

    def __post_init__(self) -> None:
        if len(self.audio_paths) != len(self.protocol.trials):
            raise ValueError(f"{len(self.protocol.trials)} trials need as many files, found {len(self.audio_paths)}")

    def __len__(self) -> int:
        return len(self.audio_paths)


@dataclass(frozen=True)
class Published:
    """The counts of a published set, None where only their sum is known, and how its utterances begin."""

    total: int
    bona_fide: int | None
    prefix: str


@dataclass(frozen=True)
class PartSource:
    """Where a part is and how its trials are read: nothing of it has been read yet.

    `published` is what the set of this name holds as it was published.
    """

    name: PartName
    scan: Callable[[], ScannedProtocol]
    audio_folders: tuple[Path, ...]
    published: Published | None = None


@dataclass(frozen=True)
class FoundCorpus:
    """A corpus as its layout was recognised; `division` says how the training and development parts came about.

    `whole` is all of a corpus that names no parts, for a detector that was trained on another one.
    """

    layout: str
    folder: Path
    parts: tuple[PartSource, ...]
    division: str = ""
    whole: PartSource | None = None

    def part(self, name: PartName) -> PartSource | None:
        """Return the part of this name, None where the corpus has none."""
        return next((part for part in self.parts if part.name == name), None)

    @property
    def can_train(self) -> bool:
        """Whether there is a part to train on and another one to validate on."""
        return self.part("train") is not None and self.part("dev") is not None


def open_part(source: PartSource, layout: str, scanned: ScannedProtocol | None = None) -> CorpusPart:
    """Read a part and find its audio; raises UserError for a fault of the protocol or where audio is missing.

    `scanned` is what `source.scan` gave, or some of it.
    """
    scanned = source.scan() if scanned is None else scanned
    protocol = scanned.protocol()
    audio = AudioFiles(source.audio_folders)
    unlistable = audio.unlistable()
    if unlistable:
        raise UserError(
            f"{unlistable[0]}: the audio folder cannot be listed ({unlistable[1]}): check --database_path; "
            f"{WITHOUT_DATA}"
        )
    paths = audio.find_all(scanned.names)
    found = tuple(path for path in paths if path is not None)
    if len(found) < len(paths):
        missing = [name for name, path in zip(scanned.names, paths, strict=True) if path is None]
        raise UserError(
            f"{source.audio_folders[0]}: {len(missing):,} of {len(protocol):,} utterances of {protocol.path} have no "
            f"audio file ({few(missing)}): unpack the {source.name} archive again, or correct --database_path or "
            "--protocols_path"
        )
    _refuse_what_needs_ffmpeg(protocol, found)
    return CorpusPart(source.name, protocol, found, layout)


def _refuse_what_needs_ffmpeg(protocol: Protocol, paths: Sequence[Path]) -> None:
    """Raise UserError where ffmpeg is missing that audio of a protocol needs, before training meets the first of it."""
    unread = [] if ffmpeg_path() else [path.name for path in paths if needs_ffmpeg(path.name)]
    if unread:
        raise UserError(
            f"{protocol.path}: {len(unread):,} of {len(paths):,} utterances are in formats that cannot be read here "
            f"({few(unread)}): {without_ffmpeg(unread[0])}"
        )


def open_training_part(source: PartSource, layout: str, *, needs_spoofs: bool = True) -> CorpusPart:
    """Open a part to train or validate on, with both classes if it `needs_spoofs`; raises UserError as `open_part`."""
    scanned = source.scan() if needs_spoofs else source.scan().heard_for_speech()
    protocol = scanned.protocol()
    for fault in scanned.class_faults() if needs_spoofs else ():
        raise UserError(fault.message)
    assert all(trial.is_bona_fide is not None for trial in protocol.trials)
    return open_part(source, layout, scanned)
