"""Many texts in two arrays, as names and paths of a million trials in processes that share memory.

A forked worker shares the memory of its parent for as long as neither writes to it, and Python writes to an object
whenever it is looked at: its reference count. Looking at a text in here makes a new one and writes to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_AS = ("utf-8", "surrogatepass")
"""Keeps every text that Python can hold: names of files that are no UTF-8 have lone surrogates."""


class TextColumn:
    """Texts by their places from 0 on, which cannot be changed.

    >>> column = TextColumn(["LA_T_1138215", "", "ü"])
    >>> len(column), [column[place] for place in range(3)]
    (3, ['LA_T_1138215', '', 'ü'])
    """

    def __init__(self, texts: Iterable[str]) -> None:
        content, ends = bytearray(), [0]
        for text in texts:
            content += text.encode(*_AS)
            ends.append(len(content))
        self._content = np.frombuffer(bytes(content), dtype=np.uint8)
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        """Return how many texts there are."""
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        """Return the text at a place; raises IndexError where there is none."""
        if not 0 <= place < len(self):
            raise IndexError(f"places go from 0 to {len(self) - 1}, found {place}")
        return self._content[self._ends[place] : self._ends[place + 1]].tobytes().decode(*_AS)
