"""The processes of one run, and what they decide together. Alone is one process: all that it decides is decided.

Whatever decides goes through `Ranks`: whether to stop or to save, what the plan is, whether something failed. So each
decision is made once and told to all, and a second kind of ranks changes no line of those who decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from utils.errors import EXIT_FAILURE
from utils.interruption import StopRequest

Value = TypeVar("Value")


@dataclass(frozen=True)
class Failure:
    """Why the processes cannot go on together: the first cause that this one heard of.

    `index` is the process that failed; `is_lost` says that it does not answer any more, and that `text` is what is
    known of it; else it said `text` and the `exit_code` itself.
    """

    index: int
    text: str
    exit_code: int = EXIT_FAILURE
    is_lost: bool = False


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
        """Return to all what `make` returned to the first, which alone calls it; a UserError is raised by all."""

    @property
    def saves(self) -> bool:
        """Whether this is the process that saves: the first one, or the lowest that lives."""

    @property
    def failure(self) -> Failure | None:
        """Why the processes cannot go on together; None while they can."""

    def watch(self, stop: StopRequest) -> None:
        """Have `stop` requested once the processes cannot go on together, which ends whatever waits for it."""

    def fail(self, text: str, exit_code: int = EXIT_FAILURE) -> None:
        """Tell the others that this process cannot go on, or was stopped, unless one of them said so before."""

    def is_failure(self) -> bool:
        """Return whether a process failed, where an error is the first that was seen of it; waits some seconds."""

    def conclude(self, make: Callable[[], Value]) -> Value:
        """Return what `make` returned to the process that saves, which alone calls it; for the end after a failure."""

    def fence_first(self) -> None:
        """See to it that the first process, which does not answer, never writes again, if it is on this machine."""

    def close(self) -> None:
        """Take leave of the others, who do not miss this process then."""


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
    saves = True
    failure = None

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

    def watch(self, stop: StopRequest) -> None:
        """Nobody else can fail."""

    def fail(self, text: str, exit_code: int = EXIT_FAILURE) -> None:
        """Nobody else is told."""

    def is_failure(self) -> bool:
        """It is an error of its own."""
        return False

    def conclude(self, make: Callable[[], Value]) -> Value:
        """Return what `make` returns."""
        return make()

    def fence_first(self) -> None:
        """It answers."""

    def close(self) -> None:
        """Nobody is left."""


def stop_asked(ranks: Ranks, stop: StopRequest) -> bool:
    """Return whether a stop was asked for in any of the processes; then it was in all of them, by the same signal."""
    asked = [number for number in ranks.gather(stop.signal) if number is not None]
    if asked:
        stop.signal = asked[0]
    return bool(asked)
