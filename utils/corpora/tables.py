"""Any corpus with a plain table `path,label[,attack,speaker,split]`: one per part, or one that is divided.

Paths are relative to the table or to the database. The parts are train.csv, dev.csv and eval.csv (or val.csv and
test.csv); or one table whose column `split` (or `part`) names them; or one without it, divided by speaker (see
utils/corpora/division.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from utils.corpora.division import development_positions, selected
from utils.corpora.parts import FoundCorpus, PartName, PartSource
from utils.corpora.places import first_file
from utils.corpora.protocols import scan_protocol
from utils.corpora.trial_columns import HEADER_NAMES, headed_columns
from utils.corpora.trials import Fault, FaultKind, ScannedProtocol
from utils.errors import UserError
from utils.text_tables import numbered_rows

LAYOUT = "CSV"
LOOKED_FOR = "train.csv and dev.csv, or one .csv file with the header path,label"
PART_WORDS: dict[PartName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "dev": ("dev", "val", "valid", "validation", "development"),
    "eval": ("eval", "test", "evaluation", "testing"),
}
_DIVIDED = "a fifth of each class, whole speakers, is the development part, chosen by a hash of their names"
_BYTES_OF_HEADER = 4096


def find(database: Path, protocols: Path | None) -> FoundCorpus | None:
    """Return the corpus whose tables lie in `protocols` or `database`, either of which may be a table itself."""
    for place in (protocols, database):
        if place is None:
            continue
        if place.is_file() and (place == protocols or _is_table(place)):
            return _of_one_table(place, database)
        tables = {name: first_file(place / f"{word}.csv" for word in words) for name, words in PART_WORDS.items()}
        if tables["train"] and tables["dev"]:
            return FoundCorpus(LAYOUT, database, tuple(_of_tables(tables, database)), "one table for each part")
        if place.is_dir():
            found = [path for path in sorted(place.glob("*.csv")) if _is_table(path)]
            if len(found) == 1:
                return _of_one_table(found[0], database)
    return None


def header_of(path: Path) -> tuple[str, ...]:
    """Return the header of a table in lower case, () where there is none or the file is no text."""
    try:
        with path.open("rb") as file:
            text = file.read(_BYTES_OF_HEADER).decode("utf-8-sig", errors="replace")
    except OSError:
        return ()
    return numbered_rows(text.replace("\r\n", "\n").strip().partition("\n")[0], HEADER_NAMES)[0]


def audio_folders(table: Path, database: Path) -> tuple[Path, ...]:
    """Return the folders that the paths in a table are relative to."""
    folder = database if database.is_dir() else database.parent
    return (table.parent, folder) if table.parent != folder else (folder,)


def _of_tables(tables: dict[PartName, Path | None], database: Path) -> list[PartSource]:
    return [
        PartSource(name, partial(scan_protocol, path), audio_folders(path, database))
        for name, path in tables.items()
        if path
    ]


def _of_one_table(table: Path, database: Path) -> FoundCorpus:
    header = header_of(table)
    columns = headed_columns(header)
    if columns is None:
        raise UserError(
            f"{table}: to train on one file it must be a table with a header that names a column `path` and one "
            "`label` (`speaker`, `attack` and `split` may be there, too): for a corpus in the layout of ASVspoof pass "
            "the folder of its protocols, not one of them"
        )
    folder = database if database.is_dir() else database.parent
    scan_all = cache(partial(scan_protocol, table))
    folders = audio_folders(table, database)
    if columns.part is not None:
        scans = {name: partial(_scan_named_part, scan_all, name) for name in PART_WORDS}
        present = {name for name, scan in scans.items() if name != "eval" or scan().trials}
        parts = [PartSource(name, scans[name], folders) for name in PART_WORDS if name in present]
        return FoundCorpus(LAYOUT, folder, tuple(parts), f"the column `{header[columns.part]}` of {table.name}")
    whole = PartSource("eval", scan_all, folders)
    return FoundCorpus(LAYOUT, folder, divided_parts(scan_all, folders), _DIVIDED, whole)


def divided_parts(scan_all: Callable[[], ScannedProtocol], folders: tuple[Path, ...]) -> tuple[PartSource, PartSource]:
    """Return a training and a development part made of all trials."""
    return (
        PartSource("train", partial(_scan_division, scan_all, "train"), folders),
        PartSource("dev", partial(_scan_division, scan_all, "dev"), folders),
    )


def _scan_named_part(scan_all: Callable[[], ScannedProtocol], name: PartName) -> ScannedProtocol:
    scanned = scan_all()
    words = PART_WORDS[name]
    positions = [at for at, trial in enumerate(scanned.trials) if trial.part in words]
    return selected(scanned, positions, with_faults=name == "train")


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
    return path.name == "meta.csv" and header_of(path) == ("file", "speaker", "label")


def _is_table(path: Path) -> bool:
    return headed_columns(header_of(path)) is not None and not is_in_the_wild(path)
