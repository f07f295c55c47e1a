"""Where a corpus is looked for, what lies in a folder, and the first of several files that is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from utils.corpora.protocols import scan_protocol
from utils.corpora.trial_columns import TrialColumns
from utils.corpora.trials import ScannedProtocol
from utils.labels import Labels
from utils.regular_files import NotARegularFileError, is_regular, open_regular
from utils.terminal_text import printable

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")


class CorpusPlace(NamedTuple):
    """What is said of a corpus before it is looked at.

    `database` is its folder, or the parent of a published one; `protocols` the folder that holds the protocol files, or
    one table; `label_1` the class that labels of 0 and 1 write as 1, None where nobody said it.
    """

    database: Path
    protocols: Path | None = None
    label_1: str | None = None

    def scanning(self, path: Path, columns: TrialColumns | None = None) -> Callable[[], ScannedProtocol]:
        """Return what reads a protocol file of this corpus; see `scan_protocol`."""
        return partial(scan_protocol, path, columns, Labels(self.label_1))


def what_is_in(folder: Path) -> str:
    """Return up to six names in a folder, first those of tables, or what else it is."""
    if not folder.is_dir():
        return "a file" if is_regular(folder) else why_unread(folder) or "no such folder"
    names = sorted(os.listdir(folder), key=lambda name: (not is_named_as_table(name), name))  # noqa: PTH208
    if not names:
        return "an empty folder"
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(map(printable, names[:6])) + more


def is_named_as_table(name: str, suffixes: Sequence[str] = TABLE_SUFFIXES) -> bool:
    """Return whether a name ends as those of tables do, in any case."""
    return name.lower().endswith(tuple(suffixes))


def why_unread(path: Path) -> str:
    """Return why what lies at a path is no file that can be read; "" where it is one, or nothing is there."""
    try:
        open_regular(path).close()
    except NotARegularFileError as error:
        return str(error.strerror)
    except (OSError, ValueError):
        return ""
    return ""


def first_file(candidates: Iterable[Path]) -> Path | None:
    """Return the first file that exists."""
    return next((path for path in candidates if path.is_file()), None)


def first_folder(candidates: Iterable[Path]) -> Path | None:
    """Return the first folder that exists."""
    return next((path for path in candidates if path.is_dir()), None)


def named(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """Yield where something in a folder would lie by each of these names: as it is, then as `Train`, then as `TRAIN`.

    The folder is not listed: it may hold all the audio of a corpus.
    """
    wanted = list(names)
    for form in (str, str.capitalize, str.upper):
        yield from (folder / form(name) for name in wanted)
