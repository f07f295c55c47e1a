"""Thins rows of any number to some hundred that draw the same curve, and looks at rows it has seen no second time.

Rows lie in buckets of one length, a power of two: where these grow too many, two neighbours become one. Of each bucket
its first and its last row are kept, the lowest and the highest value, of equal ones the earliest, and the first value
that is not finite, which is a gap: at that width a line through them covers what a line through all would (M4, Jugel
et al., VLDB 2014). So extremes, gaps and the newest row are always there. What is kept follows from the rows alone, and
not from how often they were looked at meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")


class Thinned(Generic[Row]):
    """What is kept of a list that only grows, in `most_buckets` buckets at most; `value` is what is drawn of a row.

    >>> Thinned(float, most_buckets=2).rows([3.0, 1.0, 2.0, 9.0, 4.0, 5.0, 7.0])
    [3.0, 1.0, 9.0, 4.0, 7.0]
    """

    def __init__(self, value: Callable[[Row], float], most_buckets: int) -> None:
        self.width = 1
        """How many rows share a bucket."""
        self._value = value
        self._most = most_buckets
        self._full: list[list[tuple[int, Row]]] = []  # of each full bucket the places and rows that are kept

    def rows(self, rows: Sequence[Row]) -> list[Row]:
        """Return what is kept of `rows`, in their order. A list that is not the one of before, grown, starts anew."""
        if self._full:
            at, last = self._full[-1][-1]
            if at >= len(rows) or rows[at] is not last:
                self._full, self.width = [], 1
        while len(rows) > self._most * self.width:
            pairs = range(0, len(self._full) - 1, 2)  # a last one alone is not full any more
            self._full = [self._kept(self._full[at] + self._full[at + 1]) for at in pairs]
            self.width *= 2
        for first in range(len(self._full) * self.width, len(rows) + 1 - self.width, self.width):
            self._full.append(self._kept(self._placed(rows, first)))
        rest = self._placed(rows, len(self._full) * self.width)
        return [row for bucket in (*self._full, self._kept(rest) if rest else []) for _, row in bucket]

    def _placed(self, rows: Sequence[Row], first: int) -> list[tuple[int, Row]]:
        return list(enumerate(rows[first : first + self.width], first))

    def _kept(self, bucket: Sequence[tuple[int, Row]]) -> list[tuple[int, Row]]:
        values = [self._value(row) for _, row in bucket]
        finite = [at for at, value in enumerate(values) if math.isfinite(value)]
        kept = {0, len(bucket) - 1}
        if finite:
            kept |= {min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)}
        if len(finite) < len(values):
            kept.add(next(at for at, value in enumerate(values) if not math.isfinite(value)))
        return [bucket[at] for at in sorted(kept)]


class Seen:
    """What the pages of one process have looked at so far: each list that is drawn, by a name."""

    def __init__(self) -> None:
        self._lists: dict[str, Thinned[Any]] = {}

    def thinned(self, name: str, rows: Sequence[Row], value: Callable[[Row], float], most_buckets: int) -> list[Row]:
        """Return what is kept of `rows`, which are always those of this name, and so is what is drawn of them."""
        return self._lists.setdefault(name, Thinned(value, most_buckets)).rows(rows)

    @property
    def widest(self) -> int:
        """How many rows share a bucket of the list that is thinned most; 1 for none."""
        return max((thinned.width for thinned in self._lists.values()), default=1)
