"""The one reader of tables: protocols, keys, lists of corpora and scores; what is wrong is named by its line.

A table has a header, and its cells are divided by tabs, commas, semicolons, bars or spaces, with quotes as in CSV; or
it has none, and its cells are divided by spaces or tabs, or by one of the others where that makes lines that are known.
Blank lines do not count, nor do comments: lines that begin with `# `. `utils.table_bytes` says which text is read.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from utils.errors import UserError
from utils.table_bytes import decode, head_lines, read_table_bytes, split_lines
from utils.table_quotes import QuotedRows
from utils.terminal_text import printable

NUMBER_RULE = "a score is a finite number"
_DELIMITERS = "\t,;| "
_FIRST_DELIMITERS = "\t, "
_COMMENT = "# "
_Value = TypeVar("_Value")
_IsKnown = Callable[[Sequence[str]], bool]


@dataclass(frozen=True)
class Header:
    """How a table begins: the names of its columns, `()` for no header, and what divides its cells, "" for any space.

    `titles` are the names as they are written, `names` in lower case; `line_number`, from 1, is that of the header.
    """

    titles: tuple[str, ...] = ()
    delimiter: str = ""
    line_number: int = 0
    is_utf8: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns in lower case, which is how they are looked for."""
        return tuple(title.lower() for title in self.titles)

    @property
    def is_plain(self) -> bool:
        """Whether the first versions read it, too: what they knew is recognised before what they did not."""
        return self.is_utf8 and (self.delimiter in _FIRST_DELIMITERS)


@dataclass(frozen=True, eq=False)
class Lines:
    """The lines of a file, "" for comments, and its header; `content` is what the file holds."""

    path: Path
    noun: str
    content: bytes
    lines: list[str]
    header: Header

    def rows(self, is_row: _IsKnown) -> Iterator[tuple[int, list[str]]]:
        """Yield each line that counts: its number from 1, and its cells.

        Raises UserError, when it comes there, for a quote that is never closed, or that is closed only after lines that
        are rows of their own, by `is_row`: a table is never read as a shorter one.
        """
        first, delimiter = self.header.line_number, self.header.delimiter
        if delimiter:
            yield from QuotedRows(self.path, self.lines, delimiter, first, is_row)
        else:
            yield from (
                (number, row) for number, line in enumerate(self.lines[first:], first + 1) if (row := line.split())
            )

    def first_row(self) -> tuple[int, list[str]]:
        """Return the number and the cells of the first line that counts, 0 and [] where none does."""
        return next(self.rows(lambda _: False), (0, []))


def open_lines(path: Path, noun: str, advice: str, header_names: Collection[str], is_known: _IsKnown) -> Lines:
    """Read a file of columns: one with a header has at least two of `header_names`; `is_known` tells a line of one
    without, which decides between commas, semicolons, bars and tabs where spaces do not divide it.

    `noun` names the kind of file in messages, `advice` says what to do where it cannot be read. Raises UserError for a
    file that cannot be read, is not text or is empty, and for a header that has a name of `header_names` twice.
    """
    content = read_table_bytes(path, noun, advice)
    text = decode(content, path, noun)
    lines = split_lines(text)
    header = _find_header(lines, header_names)
    if "#" in text:
        lines = ["" if _is_comment(line) else line for line in lines]
    if not header.titles:
        header = Header(delimiter=_delimiter_without_header(lines, is_known))
    doubled = [name for name in header_names if header.names.count(name) > 1]
    if doubled:
        raise UserError(
            f"{path}, line {header.line_number}: two columns have the name `{doubled[0]}`: name one of them otherwise"
        )
    if not any(line.strip() for line in lines):
        raise UserError(f"{path}: the {noun} file is empty: {advice}")
    return Lines(path, noun, content, lines, header)


def header_of(path: Path, header_names: Collection[str]) -> Header:
    """Return the header of a file, read no further than that; one without names where it has none or is no text."""
    lines, is_utf8 = head_lines(path)
    found = _find_header(lines, header_names)
    return Header(found.titles, found.delimiter, found.line_number, is_utf8)


def any_header_of(path: Path) -> tuple[str, ...]:
    """Return the cells of a file's first line, whatever they are, for a message; () where it is no table."""
    line = next((line for line in head_lines(path)[0] if line.strip() and not _is_comment(line)), "")
    cells = max((_cells(line, delimiter) for delimiter in _DELIMITERS[:-1]), key=len)
    return tuple(map(printable, cells)) if len(cells) > 1 and "\0" not in line else ()


def _find_header(lines: Sequence[str], header_names: Collection[str]) -> Header:
    """Return the header in the first line that is not blank, or after the comments; a `#` before it is left out."""
    for at, line in enumerate(lines):
        text = line.strip()
        is_comment = _is_comment(line)
        for delimiter in "" if not text else _DELIMITERS[:-1] if is_comment else _DELIMITERS:
            titles = [cell.strip() for cell in _cells(line.lstrip("# ") if text.startswith("#") else line, delimiter)]
            if len({title.lower() for title in titles} & set(header_names)) >= 2:
                return Header(tuple(titles), delimiter, at + 1)
        if text and not is_comment:
            break
    return Header()


def _delimiter_without_header(lines: Sequence[str], is_known: _IsKnown) -> str:
    line = next((line for line in lines if line.strip()), "")
    if is_known(line.split()):
        return ""
    return next((mark for mark in "\t,;|" if is_known([cell.strip() for cell in _cells(line, mark)])), "")


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a cell of more than 128 kB
        return []


def _is_comment(line: str) -> bool:
    return line.startswith("#") and (line.startswith(_COMMENT) or line.strip() == "#")


@dataclass(frozen=True, eq=False)
class TextTable:
    """The lines of a file, all with the same number of columns.

    `header` holds the names of the columns in lower case, () where the file has none; `line_numbers` counts from 1 and
    belongs to `columns`, which hold the cells by column.
    """

    path: Path
    noun: str
    titles: tuple[str, ...]
    columns: tuple[list[str], ...]
    line_numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.line_numbers)

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns in lower case."""
        return tuple(title.lower() for title in self.titles)

    def named(self, names: Sequence[str]) -> int | None:
        """Return the index of the first column that has one of these names, None where there is none."""
        return next((self.header.index(name) for name in names if name in self.header), None)

    def first_line(self) -> str:
        """Return the first line of the table, shortened, for a message."""
        return shortened([column[0] for column in self.columns])

    def parsed(self, column: int, parse: Callable[[str], _Value], rule: str) -> list[_Value]:
        """Return a column's cells through `parse`, which raises KeyError or ValueError for what `rule` does not allow.

        Raises UserError with the line.
        """
        cells = self.columns[column]
        try:
            return list(map(parse, cells))
        except (KeyError, ValueError):
            self._refuse_first(cells, parse, rule)

    def _refuse_first(self, cells: Sequence[str], parse: Callable[[str], object], rule: str) -> NoReturn:
        for line_number, cell in zip(self.line_numbers, cells, strict=True):
            try:
                parse(cell)
            except (KeyError, ValueError):
                raise UserError(f"{self.path}, line {line_number}: {rule}, found `{shortened([cell])}`") from None
        raise AssertionError("a cell that was refused once must be refused twice")


def read_table(path: Path, noun: str, advice: str, header_names: Collection[str], is_known: _IsKnown) -> TextTable:
    """Read a file of columns whole; raises UserError as `open_lines` does, and for a line with another number of
    columns than the first."""
    opened = open_lines(path, noun, advice, header_names, is_known)
    line_numbers: list[int] = []
    # One flat list: a list per line would keep the garbage collector busy for seconds. Most cells of most columns are
    # the same few words, which interning stores once.
    cells: list[str] = []
    width = len(opened.header.titles)
    for line_number, row in opened.rows(lambda _: True):
        width = width or len(row)
        if len(row) != width:
            raise UserError(
                f"{path}, line {line_number}: every line of a {noun} file has as many columns as the first, "
                f"{width}, found {len(row)} (`{shortened(row)}`): correct the line"
            )
        line_numbers.append(line_number)
        cells += map(sys.intern, row)
    if not cells:
        raise UserError(f"{path}: the {noun} file has a header and no lines: copy it again")
    return TextTable(path, noun, opened.header.titles, tuple(cells[at::width] for at in range(width)), line_numbers)


def plain_number(cell: str) -> float:
    """Return the finite number that a cell holds, in ASCII digits; raises ValueError for anything else.

    Python takes `1_000` for a number, and digits of other scripts; no other program that reads the file does.
    """
    number = float(cell)
    if not (math.isfinite(number) and cell.isascii() and "_" not in cell):
        raise ValueError(cell)
    return number


def is_number(cell: str) -> bool:
    """Return whether `plain_number` takes a cell."""
    try:
        plain_number(cell)
    except ValueError:
        return False
    return True


def shortened(columns: Sequence[str]) -> str:
    """Return a line as a message shows it, 80 characters at most."""
    line = " ".join(columns)
    return line if len(line) <= 80 else f"{line[:77]}..."


def few(names: Sequence[str]) -> str:
    """Return up to three names for a message.

    >>> few(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
