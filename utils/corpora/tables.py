"""Any corpus with a plain table `path,label[,attack,speaker,split]`: one per part, or one that is divided.

Paths are relative to the table or to the database. The parts are train.csv, dev.csv and eval.csv (or val.csv and
test.csv); or one table whose column `split` (or `part`) names them; or one without it, divided by speaker (see
utils/corpora/division.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from utils.corpora.division import development_positions, selected
from utils.corpora.parts import FoundCorpus, PartName, PartSource
from utils.corpora.places import TABLE_SUFFIXES, CorpusPlace, first_file, is_named_as_table, named
from utils.corpora.trial_columns import HEADER_NAMES, headed_columns, is_first_header
from utils.corpora.trials import Fault, FaultKind, ScannedProtocol
from utils.errors import UserError
from utils.regular_files import is_regular
from utils.text_tables import Header, any_header_of, few, header_of

LAYOUT = "CSV"
LOOKED_FOR = "train.csv and dev.csv, or one .csv file with the header path,label"
PART_WORDS: dict[PartName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "dev": ("dev", "val", "valid", "validation", "development"),
    "eval": ("eval", "test", "evaluation", "testing"),
}
_DIVIDED = "a fifth of each class, whole speakers, is the development part, chosen by a hash of their names"
_MOST_TABLES = 64


def find(place: CorpusPlace) -> FoundCorpus | None:
    """Return the corpus whose tables lie in the protocols or the database of `place`, either of which may be a table.

    These are the tables that were always read: .csv files with the header `path,label`. See `find_others`.
    """
    return _find(place, (".csv",), _is_first_table, is_part=lambda _: True)


def find_others(place: CorpusPlace) -> FoundCorpus | None:
    """Return the corpus of tables that `find` does not know: .tsv and .txt, other delimiters, encodings and headers.

    They are looked for after all else, so that a corpus that was read from something else still is.
    """
    return None if find(place) else _find(place, TABLE_SUFFIXES, is_table, is_part=is_table)


def _find(
    place: CorpusPlace, suffixes: Sequence[str], is_one: Callable[[Path], bool], is_part: Callable[[Path], bool]
) -> FoundCorpus | None:
    for where in filter(None, (place.protocols, place.database)):
        if is_regular(where) and (where == place.protocols or is_one(where)):
            return _of_one_table(where, place)
        tables = {
            name: first_file(
                filter(is_part, named(where, (f"{word}{suffix}" for word in words for suffix in suffixes)))
            )
            for name, words in PART_WORDS.items()
        }
        if tables["train"] and tables["dev"]:
            return FoundCorpus(LAYOUT, place.database, tuple(_of_tables(tables, place)), "one table for each part")
        found = [path for path in files_named_as_tables(where, suffixes) if is_one(path)]
        if len(found) == 1:
            return _of_one_table(found[0], place)
    return None


def files_named_as_tables(folder: Path, suffixes: Sequence[str] = TABLE_SUFFIXES) -> list[Path]:
    """Return the files in a folder whose names end like those of tables, sorted; [] where they are too many for that:
    a .txt file for each utterance holds its text."""
    try:
        names = sorted(name for name in os.listdir(folder) if is_named_as_table(name, suffixes))  # noqa: PTH208
    except OSError:
        return []
    is_few = len(names) <= _MOST_TABLES or tuple(suffixes) == (".csv",)
    return [folder / name for name in names if not name.startswith(".")] if is_few else []


def headed_as(path: Path) -> Header:
    """Return how a table begins; see `header_of`."""
    return header_of(path, HEADER_NAMES)


def audio_folders(table: Path, database: Path) -> tuple[Path, ...]:
    """Return the folders that the paths in a table are relative to."""
    folder = database if database.is_dir() else database.parent
    return (table.parent, folder) if table.parent != folder else (folder,)


def _of_tables(tables: dict[PartName, Path | None], place: CorpusPlace) -> list[PartSource]:
    return [
        PartSource(name, place.scanning(path), audio_folders(path, place.database))
        for name, path in tables.items()
        if path
    ]


def _of_one_table(table: Path, place: CorpusPlace) -> FoundCorpus:
    header = headed_as(table).names
    columns = headed_columns(header)
    if columns is None:
        found = ", ".join(any_header_of(table))
        raise UserError(
            f"{table}: to train on one file it must be a table with a header that names a column `path` and one "
            f"`label` (`speaker`, `attack` and `split` may be there, too){found and f', found {found}'}: for a corpus "
            "in the layout of ASVspoof pass the folder of its protocols, not one of them"
        )
    database = place.database
    folder = database if database.is_dir() else database.parent
    scan_all = cache(place.scanning(table))
    folders = audio_folders(table, database)
    if columns.part is not None:
        column = header[columns.part]
        scans = {name: partial(_scan_named_part, scan_all, name, column) for name in PART_WORDS}
        present = {name for name, scan in scans.items() if name != "eval" or scan().trials}
        parts = [PartSource(name, scans[name], folders) for name in PART_WORDS if name in present]
        return FoundCorpus(LAYOUT, folder, tuple(parts), f"the column `{column}` of {table.name}")
    whole = PartSource("eval", scan_all, folders)
    return FoundCorpus(LAYOUT, folder, divided_parts(scan_all, folders), _DIVIDED, whole)


def divided_parts(scan_all: Callable[[], ScannedProtocol], folders: tuple[Path, ...]) -> tuple[PartSource, PartSource]:
    """Return a training and a development part made of all trials."""
    return (
        PartSource("train", partial(_scan_division, scan_all, "train"), folders),
        PartSource("dev", partial(_scan_division, scan_all, "dev"), folders),
    )


def _scan_named_part(scan_all: Callable[[], ScannedProtocol], name: PartName, column: str) -> ScannedProtocol:
    """Return the trials that the column says are of this part; the training part tells of those that are of none."""
    scanned = scan_all()
    words = PART_WORDS[name]
    positions = [at for at, trial in enumerate(scanned.trials) if trial.part in words]
    part = selected(scanned, positions, with_faults=name == "train")
    known = {word for of_part in PART_WORDS.values() for word in of_part}
    others = [trial.part for trial in scanned.trials if trial.part not in known]
    if name != "train" or not others:
        return part
    words_found = few([f"'{word}'" for word in dict.fromkeys(others)])
    told = f"not used: {len(others):,} lines whose `{column}` is no part ({words_found})"
    return replace(part, notes=(*part.notes, told))


def _scan_division(scan_all: Callable[[], ScannedProtocol], name: PartName) -> ScannedProtocol:
    scanned = scan_all()
    dev = development_positions(scanned.trials)
    if name == "dev":
        return selected(scanned, dev, with_faults=False, more=_division_faults(scanned, dev))
    others = set(dev)
    train = [position for position in range(len(scanned.trials)) if position not in others]
    return selected(scanned, train, with_faults=True)


def _division_faults(scanned: ScannedProtocol, dev: list[int]) -> tuple[Fault, ...]:
    """Return why whole speakers make no development part of both classes, if they do not."""
    classes = {scanned.trials[position].is_bona_fide for position in dev}
    if classes >= {True, False} or scanned.class_faults():
        return ()
    message = (
        f"{scanned.path}: no fifth of its speakers has both classes and leaves both for training: add a column `split` "
        "that says train or dev for each utterance, or make train.csv and dev.csv"
    )
    return (Fault(FaultKind.CLASS, message, "whole speakers cannot be divided into two parts with both classes"),)


def is_in_the_wild(path: Path) -> bool:
    """Whether a table is named and headed like that of In-the-Wild, which is for evaluation."""
    return path.name == "meta.csv" and headed_as(path).names == ("file", "speaker", "label")


def is_table(path: Path) -> bool:
    """Whether a file is a table with files and labels, but not that of In-the-Wild."""
    return headed_columns(headed_as(path).names) is not None and not is_in_the_wild(path)


def _is_first_table(path: Path) -> bool:
    header = headed_as(path)
    return header.is_plain and is_first_header(header.names) and not is_in_the_wild(path)
