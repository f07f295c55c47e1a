"""The folder of a corpus of spoofs: begun by one process, said of what it is made, finished when all of it is there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.spoofs.claims import BEGINNING_AND_END, Claims
from training.spoofs.layout import Utterance, table_text
from training.spoofs.vocoders import NamedVocoder
from utils.atomic_files import TEMPORARY_PREFIX, make_folder, remove_stray_temporaries, write_text_atomically
from utils.corpora import PartName
from utils.errors import UserError
from utils.folders import names_in
from utils.json_text import json_text
from utils.regular_files import read_regular

RECORD = "spoofs.json"
CLAIMS = "spoofs.lock"
FORMAT = 2
"""Of the record, and of how spoofs are made: another one is refused, for its spoofs are not those of this program."""
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Made:
    """What the spoofs in a folder are made of: `corpus` are the content hashes of the parts' protocols.

    `vocoders` are identities by name. `num_threads` are those that trained vocoders compute with, on which their last
    bits depend: a later process takes those of the first.
    """

    corpus: Mapping[str, str]
    vocoders: Mapping[str, str]
    num_threads: int = 1

    @classmethod
    def of(cls, corpus: Mapping[str, str], vocoders: Sequence[NamedVocoder], num_threads: int) -> Made:
        """Return what spoofs of a corpus by some vocoders are made of."""
        return cls(corpus, {vocoder.name: vocoder.identity for vocoder in vocoders}, num_threads)

    def text(self) -> str:
        """Return it as the record holds it."""
        return json_text({"format": FORMAT, **vars(self)}) + "\n"

    def differences(self, now: Made) -> list[str]:
        """Return what is not as it is `now`, a phrase each.

        >>> Made({"train": "0a"}, {"lpc": "1"}).differences(Made({"train": "0b"}, {"world": "1"}))
        ['its vocoders are lpc there and world now', 'its train part is of another protocol']
        """
        found = []
        if list(self.vocoders) != list(now.vocoders):
            found.append(f"its vocoders are {', '.join(self.vocoders)} there and {', '.join(now.vocoders)} now")
        for name in self.vocoders.keys() & now.vocoders.keys():
            if self.vocoders[name] != now.vocoders[name]:
                found.append(f"{name} is {self.vocoders[name]} there and {now.vocoders[name]} now")
        for part in dict.fromkeys((*self.corpus, *now.corpus)):
            if part not in self.corpus or part not in now.corpus:
                found.append(f"it has {'a' if part in self.corpus else 'no'} {part} part there")
            elif self.corpus[part] != now.corpus[part]:
                found.append(f"its {part} part is of another protocol")
        return found


@contextmanager
def begun(folder: Path, now: Made) -> Iterator[tuple[Claims, Made]]:
    """Yield the claims of the processes that make a folder's spoofs, and its record, which the first of them writes.

    Raises UserError where the folder holds other things, or spoofs of other settings.
    """
    _refuse_others(folder, now)
    with ExitStack() as stack:
        try:
            make_folder(folder)
            claims = stack.enter_context(Claims(folder / CLAIMS))
            claims.wait_for(BEGINNING_AND_END, str(folder / RECORD))
            if not _refuse_others(folder, now):
                write_text_atomically(folder / RECORD, now.text())
            claims.give_back(BEGINNING_AND_END)
        except OSError as error:
            raise UserError(f"--make_spoofs {folder} cannot be written: {error.strerror or error}") from error
        yield claims, _read(folder) or now


def finish(folder: Path, claims: Claims, utterances: Sequence[Utterance], vocoders: Sequence[str]) -> list[str]:
    """Write the tables of what is there and return their names, and remove what killed processes left.

    To be called when all is made. Raises OSError.
    """
    claims.wait_for(BEGINNING_AND_END, str(folder / RECORD))
    paths = (path for one in utterances for path in (one.bona_fide, *(one.spoofs(name)[0] for name in vocoders)))
    below = {Path(path).parent for path in paths}
    for place in sorted({folder, *(folder / name for name in below)}):
        remove_stray_temporaries(place)
    parts: dict[PartName, list[tuple[Utterance, list[tuple[str, str]]]]] = {}
    for one in utterances:
        if (folder / one.bona_fide).exists():
            spoofs = [(vocoder, path) for vocoder in vocoders for path in made_of(folder, one, vocoder)]
            parts.setdefault(one.part, []).append((one, spoofs))
    for part, rows in parts.items():
        text = table_text(rows)
        table = folder / f"{part}.csv"
        if not table.exists() or read_regular(table) != text.encode():
            write_text_atomically(table, text)
    claims.remove()
    claims.give_back(BEGINNING_AND_END)
    return [f"{part}.csv" for part in parts]


def made_of(folder: Path, utterance: Utterance, vocoder: str) -> tuple[str, ...]:
    """Return the path of a spoof below the folder where it is made, () where it is not."""
    return tuple(path for path in utterance.spoofs(vocoder) if os.path.lexists(folder / path))[:1]


def _refuse_others(folder: Path, now: Made) -> bool:
    """Return whether a folder has a record; raises UserError where that, or anything else in it, is of something else.

    The record never changes, and looking at it leaves no lock file in a folder that is finished.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"--make_spoofs {folder} is no folder: pass one that is empty or not there yet")
    if found := _read(folder):
        if differing := found.differences(now):
            raise UserError(
                f"--make_spoofs {folder} holds spoofs that were made otherwise: {'; '.join(differing)}: pass the "
                "settings that they were made with, or another folder"
            )
        return True
    names = [name for name in names_in(folder) if name != CLAIMS and not name.startswith(TEMPORARY_PREFIX)]
    if names and RECORD not in names:
        raise UserError(
            f"--make_spoofs {folder} holds other things ({', '.join(names[:3])}): pass a folder that is empty or not "
            "there yet"
        )
    return False


def _read(folder: Path) -> Made | None:
    path = folder / RECORD
    try:
        stored: Any = json.loads(read_regular(path, _MOST_BYTES))
        if stored["format"] != FORMAT:
            raise UserError(
                f"{path} was written by another version of this program, whose spoofs are others: pass another folder"
            )
        return Made(dict(stored["corpus"]), dict(stored["vocoders"]), int(stored["num_threads"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove that folder, or pass another one") from error
