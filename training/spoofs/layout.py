"""Where each file of a corpus of spoofs lies, and its tables: the folder is a corpus that the program reads as it is.

    train/bonafide/NAME.flac   train/VOCODER/NAME.flac   train.csv   (and so for dev and eval)

A table has the columns `path,label,attack,speaker,source`; the source of a spoof is the path of its bona fide row.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from utils.audio.finding import FLAC_SUFFIX
from utils.corpora import CorpusPart, PartName
from utils.corpora.trials import NO_ATTACK

COLUMNS = ("path", "label", "attack", "speaker", "source")
NO_SOURCE = "-"
BONA_FIDE = "bonafide"
_OF_TABLES = frozenset(",;|\"'\t")


@dataclass(frozen=True, slots=True)
class Utterance:
    """A bona fide file of a corpus, and the name that it and its spoofs have in the folder of theirs."""

    part: PartName
    name: str
    speaker: str
    path: Path

    @property
    def bona_fide(self) -> str:
        """Where its copy lies, below the folder."""
        return f"{self.part}/{BONA_FIDE}/{self.name}{self.path.suffix}"

    def spoofs(self, vocoder: str) -> tuple[str, ...]:
        """Where the spoof by a vocoder lies: with the source's suffix or, for formats that are not written, .flac."""
        stem = f"{self.part}/{vocoder}/{self.name}"
        return tuple(dict.fromkeys((f"{stem}{self.path.suffix}", f"{stem}{FLAC_SUFFIX}")))


def utterances_of(part: CorpusPart) -> list[Utterance]:
    """Return the utterances of a part under names that are theirs alone."""
    names = distinct_names([trial.utterance for trial in part.protocol.trials])
    rows = zip(names, part.protocol.trials, part.audio_paths, strict=True)
    return [Utterance(part.name, name, trial.speaker, path) for name, trial, path in rows]


def distinct_names(utterances: Iterable[str]) -> list[str]:
    """Return a relative path for each utterance, in which nothing leads upwards or is odd in a table.

    The folders that all of them lie in are left out.

    >>> distinct_names(["LA_T_1", "/data/a b/1", "../LA_T_1", "one,two", "LA_T_1_2"])
    ['LA_T_1', 'data/a b/1', 'LA_T_1_2', 'one_two', 'LA_T_1_2_2']
    >>> distinct_names(["/data/real/x/1", "/data/real/y/1"])
    ['x/1', 'y/1']
    """
    all_parts = [_parts(utterance) for utterance in utterances]
    in_common = len(os.path.commonprefix([parts[:-1] for parts in all_parts]))  # noqa: RUF071 - of lists
    taken: dict[str, int] = {}
    found = []
    for parts in all_parts:
        plain = name = "/".join(parts[in_common:])
        while name.lower() in taken:  # on some disks A is a
            taken[plain.lower()] += 1
            name = f"{plain}_{taken[plain.lower()]}"
        taken[name.lower()] = 1
        found.append(name)
    return found


def _parts(utterance: str) -> list[str]:
    parts = PurePosixPath(utterance.replace("\\", "/")).parts
    return [_plain_part(part) for part in parts if part not in ("/", "//", "..")] or ["utterance"]


def _plain_part(part: str) -> str:
    plain = "".join("_" if character in _OF_TABLES or not character.isprintable() else character for character in part)
    return "_" + plain[1:] if plain.startswith(".") else plain


def table_text(rows: Iterable[tuple[Utterance, Sequence[tuple[str, str]]]]) -> str:
    """Return the table of a part, of utterances with the (vocoder, path) of the spoofs that there are of each."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for utterance, spoofs in rows:
        source = utterance.bona_fide
        writer.writerow((source, "bonafide", NO_ATTACK, utterance.speaker, NO_SOURCE))
        for vocoder, path in spoofs:
            writer.writerow((path, "spoof", vocoder, utterance.speaker, source))
    return file.getvalue()
