"""Lists that only grow, as they are at one moment: taken at once however long they are, and written out later.

A save holds training for as long as it takes to take its state. What a run's past holds never changes, and is only
added to: so a number is all that must be kept of it, and the thread that writes makes the rows of the file.

    >>> rows = [1, 2]
    >>> taken = Appended(rows, str)
    >>> rows.append(3)
    >>> written_out({"rows": taken, "step": 3})
    {'rows': ['1', '2'], 'step': 3}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")


class Appended(Generic[Row]):
    """The rows that `rows` has now; nobody may change or remove one of them. `as_plain` makes what a file holds."""

    def __init__(self, rows: Sequence[Row], as_plain: Callable[[Row], Any]) -> None:
        self._rows = rows
        self._number = len(rows)
        self._as_plain = as_plain

    def written_out(self) -> list[Any]:
        """Return what a file holds of them, in new containers."""
        return [self._as_plain(row) for row in self._rows[: self._number]]


def written_out(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload in which every list is one that a file can hold."""
    return {key: value.written_out() if isinstance(value, Appended) else value for key, value in payload.items()}
