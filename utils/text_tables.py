"""Text files of lines and columns, as protocols, keys and scores are published; what is wrong is named by its line."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from utils.errors import UserError

NUMBER_RULE = "a score is a finite number"
_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class TextTable:
    """The lines of a file, all with the same number of columns.

    `header` holds the names of the columns in lower case, () where the file has none; `line_numbers` counts from 1 and
    belongs to `columns`, which hold the cells by column.
    """

    path: Path
    noun: str
    header: tuple[str, ...]
    columns: tuple[list[str], ...]
    line_numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.line_numbers)

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


def read_table(path: Path, noun: str, advice: str, header_names: Collection[str]) -> TextTable:
    """Read a file of columns: a header with at least two of `header_names`, divided by tabs, commas or spaces as it is
    (quotes as in CSV); or no header, divided by spaces or tabs. Blank lines, CRLF and a byte-order mark are fine.

    `noun` names the kind of file in messages, `advice` says what to do where it cannot be read. Raises UserError for a
    file that cannot be read, is not text or is empty, and for a line with another number of columns.
    """
    text = decoded(read_bytes(path, noun, advice), path, noun)
    header, numbered = numbered_rows(text, header_names)
    if not header and not text.strip():
        raise UserError(f"{path}: the {noun} file is empty: {advice}")
    return _table(path, noun, header, numbered)


def numbered_rows(text: str, header_names: Collection[str]) -> tuple[tuple[str, ...], Iterator[tuple[int, list[str]]]]:
    """Return the header of a text in lower case, () for none, and its other lines: number from 1, and cells.

    What a header is, and what divides the cells, is told at `read_table`. Blank lines are left out.
    """
    # Not splitlines(), which divides at a dozen characters more.
    lines = text.replace("\r\n", "\n").split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    for delimiter in "\t, ":
        names = tuple(cell.strip().lower() for cell in next(csv.reader([lines[first]], delimiter=delimiter), ()))
        if len(set(names) & set(header_names)) >= 2:
            rows = csv.reader(lines[first + 1 :], delimiter=delimiter)
            return names, ((first + 1 + rows.line_num, row) for row in rows if any(cell.strip() for cell in row))
    return (), ((number, row) for number, line in enumerate(lines, 1) if (row := line.split()))


def _table(path: Path, noun: str, header: tuple[str, ...], numbered: Iterable[tuple[int, list[str]]]) -> TextTable:
    line_numbers: list[int] = []
    # One flat list: a list per line would keep the garbage collector busy for seconds. Most cells of most columns are
    # the same few words, which interning stores once.
    cells: list[str] = []
    width = len(header)
    for line_number, row in numbered:
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
    return TextTable(path, noun, header, tuple(cells[column::width] for column in range(width)), line_numbers)


def read_bytes(path: Path, noun: str, advice: str) -> bytes:
    """Return the content of a file; raises UserError that says `advice` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the {noun} file cannot be read ({error.strerror}): {advice}") from error


def decoded(content: bytes, path: Path, noun: str) -> str:
    """Return the text of a file in UTF-8 without a byte-order mark; raises UserError with the line where it is none."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_number = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line_number}: a {noun} is a text file, found the byte 0x{content[error.start]:02x}, "
            f"which is not UTF-8: pass the {noun} (.txt), not audio or an archive"
        ) from error
    if "\0" in text:
        line_number = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{path}, line {line_number}: a {noun} is a text file, found a zero byte: "
            f"the file is damaged or not a {noun}; copy it again"
        )
    return text


def plain_number(cell: str) -> float:
    """Return the finite number that a cell holds, in ASCII digits; raises ValueError for anything else.

    Python takes `1_000` for a number, and digits of other scripts; no other program that reads the file does.
    """
    number = float(cell)
    if not (math.isfinite(number) and cell.isascii() and "_" not in cell):
        raise ValueError(cell)
    return number


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
