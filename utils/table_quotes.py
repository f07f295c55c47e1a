"""Rows with quotes as in CSV, of which none may swallow others: a quote that is not closed is named by its line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NoReturn

from utils.errors import UserError


class QuotedRows:
    """The rows in `lines`, from the position `first` on, each with the number of the line that it begins in, from 1.

    A quoted cell may go over several lines, as a transcript does, but over none that is a row of its own: one with as
    many cells, by `is_row`.
    """

    def __init__(
        self, path: Path, lines: Sequence[str], delimiter: str, first: int, is_row: Callable[[Sequence[str]], bool]
    ) -> None:
        self._path = path
        self._lines = lines
        self._delimiter = delimiter
        self._first = first
        self._is_row = is_row

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yield them; raises UserError for a quote that is not closed, when it comes there."""
        reader = csv.reader(islice(self._lines, self._first, None), delimiter=self._delimiter)
        begin = self._first
        row: list[str] = []
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:  # a cell of more than 128 kB
                self._refuse(begin, self._first + reader.line_num)
            end = self._first + reader.line_num
            if end == len(self._lines) and self._opened_in(begin, end) is not None:
                self._refuse(begin, end)
            if end > begin + 1:
                self._refuse_swallowed(begin, end, len(row))
            if any(cell.strip() for cell in row):
                yield begin + 1, row
            begin = end

    def _refuse_swallowed(self, begin: int, end: int, width: int) -> None:
        for at in range(begin + 1, end):
            cells = next(csv.reader([self._lines[at]], delimiter=self._delimiter), [])
            if len(cells) == width and self._is_row(cells):
                self._refuse(begin, at, f" before line {at + 1}, a row of its own")

    def _refuse(self, begin: int, end: int, where: str = "") -> NoReturn:
        opened = self._opened_in(begin, end)
        number = (begin if opened is None else opened) + 1
        raise UserError(
            f'{self._path}, line {number}: the quote (") that is opened in this line is not closed{where}: close it, '
            "or put the whole cell into quotes and write each quote in it twice"
        )

    def _opened_in(self, begin: int, end: int) -> int | None:
        """Return the position of the line where the quote was opened that is open after the lines; None for none."""
        opened = 0
        state = "start of a cell"
        for at in range(begin, end):
            for char in self._lines[at]:
                if state == "in quotes":
                    state = "after a quote" if char == '"' else state
                elif char == self._delimiter:
                    state = "start of a cell"
                elif char != '"' or state == "in a cell":
                    state = "in a cell"
                else:
                    # The second of two quotes goes on in the cell that the first one seemed to end.
                    opened = at if state == "start of a cell" else opened
                    state = "in quotes"
            state = state if state == "in quotes" else "start of a cell"
        return opened if state == "in quotes" else None
