"""Corpora on disk in the layout of ASVspoof 2019 LA: every part a protocol and the audio file of each of its trials.

The protocol decides. Every utterance it names must be there, which one listing of the folder shows before training
starts; files that it does not name (enrolment speech, for one) are ignored.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from utils.errors import UserError
from utils.protocols import Protocol, read_protocol
from utils.seeding import generator_at

PartName = Literal["train", "dev", "eval"]

PROTOCOLS_FOLDER = "ASVspoof2019_LA_cm_protocols"
PROTOCOL_FILES: dict[PartName, str] = {
    "train": "ASVspoof2019.LA.cm.train.trn.txt",
    "dev": "ASVspoof2019.LA.cm.dev.trl.txt",
    "eval": "ASVspoof2019.LA.cm.eval.trl.txt",
}
_AUDIO_SUFFIXES = (".flac", ".wav")
_WITHOUT_DATA = "--database_path demo tries the program without data"


@dataclass(frozen=True)
class CorpusPart:
    """The training, development or evaluation part: a protocol and, aligned with its trials, the audio files."""

    name: PartName
    protocol: Protocol
    audio_paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        if len(self.audio_paths) != len(self.protocol.trials):
            raise ValueError(f"{len(self.protocol.trials)} trials need as many files, found {len(self.audio_paths)}")

    def __len__(self) -> int:
        return len(self.audio_paths)


@dataclass(frozen=True)
class AsvspoofCorpus:
    """An ASVspoof 2019 LA folder, its training and development parts opened and complete."""

    folder: Path
    protocols_folder: Path
    train: CorpusPart
    dev: CorpusPart

    def open_eval(self) -> CorpusPart:
        """Read the evaluation part, which training never needs; raises UserError like `find_asvspoof_2019_la`."""
        return _open_part("eval", self.folder, self.protocols_folder)


def audio_folder(la_folder: Path, part: PartName) -> Path:
    """Return the folder of a part's audio, `ASVspoof2019_LA_<part>/flac` below the LA folder."""
    return la_folder / f"ASVspoof2019_LA_{part}" / "flac"


def find_asvspoof_2019_la(database_path: Path, protocols_path: Path | None = None) -> AsvspoofCorpus:
    """Open the training and development parts of an ASVspoof 2019 LA corpus and check that all their audio is there.

    `database_path` is the LA folder (with `ASVspoof2019_LA_train/flac`) or its parent. `protocols_path` is the folder
    that holds the protocol files or a parent of it; without it they are looked for under the database. Raises UserError
    where the layout, a protocol or any of the audio files is missing.
    """
    folder = _find_la_folder(database_path)
    protocols_folder = _find_protocols_folder(folder, protocols_path)
    return AsvspoofCorpus(
        folder=folder,
        protocols_folder=protocols_folder,
        train=_open_part("train", folder, protocols_folder),
        dev=_open_part("dev", folder, protocols_folder),
    )


def limit_examples(part: CorpusPart, num_examples: int, seed: int) -> CorpusPart:
    """Return `num_examples` trials of `part`, drawn by `seed`, in the protocol's order and proportion of classes.

    Each class keeps at least one trial. The protocol keeps the content hash of the whole file. Raises UserError for
    fewer than 2 examples or more than there are.
    """
    if not 2 <= num_examples <= len(part):
        raise UserError(
            f"--num_examples must be from 2 (one of each class) to {len(part)} "
            f"(the trials of {part.protocol.path}), found {num_examples}: pass a number in that range"
        )
    proportion = part.protocol.num_bona_fide / len(part)
    num_bona_fide = min(max(round(num_examples * proportion), 1), num_examples - 1)
    kept = sorted(
        _draw_positions(part.protocol, 1, num_bona_fide, seed)
        + _draw_positions(part.protocol, 0, num_examples - num_bona_fide, seed)
    )
    return CorpusPart(
        name=part.name,
        protocol=replace(part.protocol, trials=tuple(part.protocol.trials[index] for index in kept)),
        audio_paths=tuple(part.audio_paths[index] for index in kept),
    )


def _draw_positions(protocol: Protocol, label: int, count: int, seed: int) -> list[int]:
    positions = [index for index, found in enumerate(protocol.labels) if found == label]
    order = generator_at("examples", seed, label).permutation(len(positions))
    return [positions[index] for index in order[:count]]


def _find_la_folder(database_path: Path) -> Path:
    candidates = (database_path, database_path / "LA")
    for candidate in candidates:
        if audio_folder(candidate, "train").is_dir():
            return candidate
    raise UserError(
        f"--database_path {database_path} is not an ASVspoof 2019 LA folder: "
        f"looked for ASVspoof2019_LA_train/flac in {candidates[0]} and in {candidates[1]}, "
        f"found {_what_is_in(database_path)}: pass the folder that holds ASVspoof2019_LA_train; {_WITHOUT_DATA}"
    )


def _find_protocols_folder(la_folder: Path, protocols_path: Path | None) -> Path:
    if protocols_path is None:
        looked_in, flag = la_folder, "the database has no protocols"
        candidates = [la_folder / PROTOCOLS_FOLDER]
    else:
        looked_in, flag = protocols_path, f"--protocols_path {protocols_path} has no protocols"
        candidates = [
            protocols_path,
            protocols_path / PROTOCOLS_FOLDER,
            protocols_path / "LA" / PROTOCOLS_FOLDER,
        ]
    for candidate in candidates:
        if (candidate / PROTOCOL_FILES["train"]).is_file():
            return candidate
    raise UserError(
        f"{flag}: looked for {PROTOCOL_FILES['train']} in {' and in '.join(map(str, candidates))}, "
        f"found {_what_is_in(looked_in)}: pass --protocols_path FOLDER, the one with the .txt files; {_WITHOUT_DATA}"
    )


def _open_part(name: PartName, la_folder: Path, protocols_folder: Path) -> CorpusPart:
    protocol = read_protocol(protocols_folder / PROTOCOL_FILES[name])
    folder = audio_folder(la_folder, name)
    files = _list_audio(folder)
    missing = [trial.utterance for trial in protocol.trials if trial.utterance not in files]
    if missing:
        first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(
            f"{folder}: {len(missing)} of {len(protocol)} utterances of {protocol.path} have no .flac or .wav file "
            f"({first}): unpack the {name} archive again, or correct --database_path or --protocols_path"
        )
    return CorpusPart(name, protocol, tuple(folder / files[trial.utterance] for trial in protocol.trials))


def _list_audio(folder: Path) -> dict[str, str]:
    """Return the file name of each utterance in `folder`, from one listing of it; FLAC goes before WAV."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        raise UserError(
            f"{folder}: the audio folder cannot be listed ({error.strerror}): check --database_path; {_WITHOUT_DATA}"
        ) from error
    files: dict[str, str] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path for each of 100,000 names costs a second
        if suffix in _AUDIO_SUFFIXES:
            files.setdefault(stem, name)
    return files


def _what_is_in(folder: Path) -> str:
    if not folder.is_dir():
        return "a file" if folder.exists() else "no such folder"
    names = sorted(os.listdir(folder))  # noqa: PTH208 - names are all that is needed
    if not names:
        return "an empty folder"
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
