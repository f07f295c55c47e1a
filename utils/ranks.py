"""The processes of one run, and what they decide together. Alone is one process: all that it decides is decided.

Whatever decides goes through `Ranks`: whether to stop or to save, what the plan is, whether something failed. So each
decision is made once and told to all, and a second kind of ranks changes no line of those who decide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

Value = TypeVar("Value")


class Ranks(Protocol):
    """The processes of one run. Each method is called by all of them, at the same place and in the same order."""

    @property
    def index(self) -> int:
        """Which of them this is, from 0."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def group(self) -> Any:
        """The group of torch.distributed that tensors are exchanged in; None for one process."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that owns folder, lock, logs and printing."""

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any of the processes."""

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in their order."""

    def sum(self, value: float) -> float:
        """Return the sum of the values of all processes, added in their order."""

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Return to all what `make` returned to the first, which alone calls it; what it raises is raised by all."""


class Alone:
    """One process.

    >>> ranks = Alone()
    >>> ranks.is_first, ranks.any(False), ranks.gather("a"), ranks.sum(2.0), ranks.broadcast(lambda: "plan")
    (True, False, ['a'], 2.0, 'plan')
    >>> ranks.index, ranks.count
    (0, 1)
    """

    index = 0
    count = 1
    group = None

    @property
    def is_first(self) -> bool:
        """It is."""
        return True

    def any(self, flag: bool) -> bool:
        """Return the flag."""
        return flag

    def gather(self, value: Value) -> list[Value]:
        """Return the value."""
        return [value]

    def sum(self, value: float) -> float:
        """Return the value."""
        return value

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Return what `make` returns."""
        return make()
