"""When to save by time: late enough that nothing is saved in vain, early enough that --max_lost holds.

    times = SaveTimes(60.0)                        # seconds; None where --max_lost was not typed
    if times.is_due(now):                          # asked after each step
        times.begun(now)                           # the state is taken now, and saved in the background
    times.ended(durable_at, cost_seconds)          # or durable_at None: the disk refused it

What a SIGKILL takes is the time since the newest durable checkpoint's state was taken. The next one must be durable
before that is as long as the bound, so it begins earlier by what a save takes and by a step, which nothing interrupts;
both are measured, with a margin. Without a bound a save is due after ten minutes, or after as long as makes its cost
one percent, and it is left out where one by steps or epochs comes soon. Times are in seconds of one clock, which only
goes forward. Where the saves lie decides on no bit of training.
"""

from __future__ import annotations

import math
from collections import deque

from training.planning.save_cost import SaveCost, cost_text, seconds_text

LEAST_INTERVAL_S = 600.0
"""Without --max_lost, saves by time are at least so far apart."""
MOST_COST = 0.01
"""Without --max_lost, saves by time take at most this part of training."""
_MARGIN = 1.5  # of what the slowest of the last saves took
_SHARE_OF_BOUND = 0.05  # what a disk may be late by, beside that
_GUESSED_BYTES_PER_S = 1e8  # of a disk on which nothing was saved yet
_GUESSED_SECONDS = 0.5
_RECENT = 8
_NEAR = 0.25  # of an interval without --max_lost: a save by steps or epochs that comes within it is waited for


class SaveTimes:
    """Decides after each step whether a save by time is due; `bound` is --max_lost in seconds, None where not typed.

    `state_bytes` is the size of what is saved, from which the time of the first save is guessed; `known` is what a save
    took in an earlier process of the run. With `is_off` none is ever due.
    """

    def __init__(
        self, bound: float | None = None, state_bytes: int = 0, known: SaveCost | None = None, *, is_off: bool = False
    ) -> None:
        self.bound = bound
        self._is_off = is_off
        self._known = known
        self._guess = _GUESSED_SECONDS + state_bytes / _GUESSED_BYTES_PER_S
        self._costs: deque[SaveCost] = deque(maxlen=_RECENT)
        self._steps: deque[float] = deque(maxlen=_RECENT)
        self._asked_at: float | None = None
        self._covered_from: float | None = None  # when the state of the newest durable checkpoint was taken
        self._in_flight_from: float | None = None
        self._wait_until = -math.inf
        self._could_hold: bool | None = None

    @property
    def cost(self) -> SaveCost | None:
        """What a save takes at most, of the last ones; None before the first."""
        if not self._costs:
            return self._known
        return SaveCost(max(one.seconds for one in self._costs), max(one.cost_seconds for one in self._costs))

    @property
    def interval(self) -> float:
        """How far saves by time are apart, in seconds; 0.0 where one follows the other."""
        if self.bound is not None:
            return max(0.0, self.bound - self._needed)
        return max(LEAST_INTERVAL_S, self.cost.cost_seconds / MOST_COST if self.cost else 0.0)

    @property
    def best_possible(self) -> float:
        """How much can be lost, in seconds, where one save follows the other: two of them, and a step."""
        return 2 * (self.cost.seconds if self.cost else 0.0) + max(self._steps, default=0.0)

    @property
    def _needed(self) -> float:
        """How long before the bound a save must begin: until it is durable, and the step that is under way ends."""
        assert self.bound is not None
        until_durable = _MARGIN * self.cost.seconds if self.cost else self._guess
        return until_durable + _MARGIN * max(self._steps, default=0.0) + _SHARE_OF_BOUND * self.bound

    def start(self, now: float) -> None:
        """Say that training begins: up to now nothing is lost."""
        self._covered_from = self._asked_at = now

    def is_due(self, now: float, next_in: float = math.inf, ahead: float = 0.0) -> bool:
        """Whether to save now, between two steps; `next_in` seconds is a save by steps or epochs expected.

        `ahead` is how long it lasts until this is asked again, where that is not a step: infinite where not known.
        """
        if self._covered_from is None:
            self.start(now)
        assert self._covered_from is not None
        if self._asked_at is not None and not ahead:
            self._steps.append(now - self._asked_at)
        self._asked_at = None if ahead else now
        if self._is_off or self._in_flight_from is not None or now < self._wait_until:
            return False
        elapsed = now - self._covered_from
        if self.bound is not None:
            return elapsed + ahead >= self.interval
        near = _NEAR * self.interval
        if math.isinf(ahead):
            ahead = 0.0
        if next_in + ahead <= near and elapsed + next_in + ahead <= self.interval + near:
            return False
        return elapsed + (ahead if ahead > near else 0.0) >= self.interval

    def skip(self, now: float) -> None:
        """Say that what was done since the last question, a validation or a save that held it up, was no step."""
        self._asked_at = now

    def begun(self, now: float) -> None:
        """Say that the state was taken now for a save, whatever asked for it."""
        self._in_flight_from = now

    def ended(self, durable_at: float | None, cost_seconds: float = 0.0) -> None:
        """Say that the save under way ended, and when it was durable; None where the disk refused it.

        After a refusal the next save by time waits as long as the bound, so that a full disk is not tried each step.
        """
        begun, self._in_flight_from = self._in_flight_from, None
        if begun is None:
            return
        if durable_at is None:
            self._wait_until = begun + min(self.bound or LEAST_INTERVAL_S, LEAST_INTERVAL_S)
            return
        self._covered_from = begun
        self._costs.append(SaveCost(max(0.0, durable_at - begun), cost_seconds))

    def state(self, now: float) -> str:
        """Say how long saves take, and for how long one is awaited; "" before the first."""
        taken = f"A save takes up to {seconds_text(self.cost.seconds)} until it is on disk." if self.cost else ""
        if self._in_flight_from is None:
            return taken
        return f"{taken} One is under way for {seconds_text(now - self._in_flight_from)}.".strip()

    def news(self, num_bytes: int) -> str:
        """Return what is to be told of --max_lost, for saves of so many bytes; "" where that was told.

        It is what the bound costs, once saves were measured, or that it cannot hold, or that it holds again.
        """
        if self.bound is None or self.cost is None:
            return ""
        can_hold = self.best_possible <= self.bound
        if can_hold == self._could_hold:
            return ""
        self._could_hold = can_hold
        apart = max(self.interval, *self._steps, 0.0)
        bound, costs = seconds_text(self.bound), cost_text(apart, self.cost, num_bytes)
        if can_hold:
            return f"--max_lost {bound}: {costs}"
        return (
            f"--max_lost {bound} cannot hold: a save takes {seconds_text(self.cost.seconds)} until it is on disk, and "
            f"a step {seconds_text(max(self._steps, default=0.0))}. The best possible is "
            f"{seconds_text(self.best_possible)}: {costs}"
        )
