"""What is said of a folder that is no corpus: what was found in it, and the one thing that would make it one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.audio.finding import is_audio
from utils.corpora.class_folders import named_by_class
from utils.corpora.places import is_named_as_table, what_is_in, why_unread
from utils.corpora.tables import PART_WORDS, files_named_as_tables
from utils.corpora.trial_columns import ID_NAMES, LABEL_NAMES
from utils.text_tables import any_header_of, few

_MOST_FOLDERS = 20
_COLUMNS = (".csv", ".tsv")  # a .txt file may hold anything
_PASS = "pass the folder that holds one of these"


@dataclass(frozen=True)
class Findings:
    """What lies in a folder, as far as it could be part of a corpus.

    `headers` are the first lines of what may be tables, by file; `odd` what has the name of a table and is no
    file, with what it is; `one_column` those whose first line has one column or cannot be read; `classes` the folders
    that are named by a class, with the class; `corpora` those below that are one.
    """

    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    odd: Mapping[str, str] = field(default_factory=dict)
    one_column: Sequence[str] = ()
    classes: Mapping[str, bool] = field(default_factory=dict)
    folders: Sequence[str] = ()
    corpora: Sequence[Path] = ()
    num_audio: int = 0


def what_was_found(database: Path) -> str:
    """Return what lies in a folder, or else at its path, and how the tables in it begin."""
    headers = {path.name: any_header_of(path) for path in _tables_in(database)}
    told = [f"{name} begins `{', '.join(header)}`" for name, header in headers.items() if header]
    return "; ".join([what_is_in(database), *told[:3]])


def the_one_thing(database: Path, is_corpus: Callable[[Path], bool]) -> str:
    """Return what would make a folder a corpus; `is_corpus` tells whether one below it is one already."""
    if not database.is_dir():
        return f"{_PASS}, not a file" if os.path.lexists(database) else f"check the path, or {_PASS}"
    return advice(findings_in(database, is_corpus))


def findings_in(database: Path, is_corpus: Callable[[Path], bool]) -> Findings:
    """Look at the names in a folder and at the first lines of its tables."""
    try:
        names = sorted(name for name in os.listdir(database) if not name.startswith("."))  # noqa: PTH208
    except OSError:
        return Findings()
    tables = _tables_in(database)
    folders = [name for name in names if (database / name).is_dir()] if len(names) <= 1000 else []
    return Findings(
        headers={path.name: header for path in tables if (header := any_header_of(path))},
        odd={path.name: why for path in tables if (why := why_unread(path))},
        one_column=[path.name for path in tables if is_named_as_table(path.name, _COLUMNS) and not any_header_of(path)],
        classes={path.name: is_bona_fide for path, is_bona_fide in named_by_class(database).items()},
        folders=folders,
        corpora=list(filter(is_corpus, _folders_below(database, folders))),
        num_audio=sum(map(is_audio, names)),
    )


def _folders_below(database: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield the folders in a folder and those in these, no more than a few."""
    first = [database / name for name in names[:_MOST_FOLDERS]]
    yield from first
    for folder in first:
        try:
            yield from itertools.islice((path for path in sorted(folder.iterdir()) if path.is_dir()), _MOST_FOLDERS)
        except OSError:
            continue


def advice(found: Findings) -> str:  # noqa: PLR0911 - one return a row of the table
    """Return the one thing that is missing, for what was found; the nearest to a corpus goes first.

    >>> advice(Findings(headers={"all.csv": ("Filename", "Verdict")}))
    'name the column of all.csv that holds bonafide or spoof `label`'
    """
    if found.corpora:
        return f"pass --database_path {found.corpora[0]}"
    if found.odd:
        name, why = next(iter(found.odd.items()))
        return f"put a table in the place of {name} ({why})"
    whole = [name for name, header in found.headers.items() if _missing(header) == []]
    parts = {part for name in whole for part, words in PART_WORDS.items() if Path(name).stem in words}
    if parts & {"train", "dev"}:
        lacking = "dev.csv" if "train" in parts else "train.csv"
        return f"add {lacking}, a table as {whole[0]} is"
    if len(whole) > 1:
        tables = f"the {len(whole)} tables ({few(whole)})"
        return f"pass one of {tables} as --protocols_path, or name them train.csv and dev.csv"
    half = [(name, lacks[0]) for name, header in found.headers.items() if len(lacks := _missing(header)) == 1]
    for name, lacking in half[:1]:
        holds = "bonafide or spoof" if lacking == "label" else "the names of the files"
        return f"name the column of {name} that holds {holds} `{lacking}`"
    if found.classes:
        name, is_bona_fide = next(iter(found.classes.items()))
        return f"add the folder {'spoof' if is_bona_fide else 'bonafide'}/ beside {name}/"
    if found.headers:
        return f"give {next(iter(found.headers))} the header path,label"
    if found.one_column:
        name = found.one_column[0]
        return (
            f"give {name} the header path,label and, divided by a comma, two columns: its first line has one, or none"
        )
    if found.num_audio or found.folders:
        what = f"what is in {few(found.folders)}" if found.folders else f"the audio ({found.num_audio:,})"
        return f"move {what} into bonafide/ and spoof/, or add a table with the header path,label that names the files"
    return _PASS


def _missing(header: Sequence[str]) -> list[str]:
    names = {name.strip().lower() for name in header}
    wanted = (("path", ID_NAMES), ("label", LABEL_NAMES))
    return [name for name, words in wanted if not names & set(words)]


def _tables_in(folder: Path) -> list[Path]:
    return files_named_as_tables(folder)
