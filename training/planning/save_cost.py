"""What a save costs, in time and in bytes a day: measured by one process, kept in each record, told in plans."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from utils.terminal_text import bytes_text

COST_KEY = "save_cost"
"""The key in the metadata of a checkpoint for what the saves before it took."""
_DAY_S = 86_400


@dataclass(frozen=True)
class SaveCost:
    """What a save took: seconds until it was durable, and seconds of training; None where it was not measured.

    Of training it takes what held up the loop, and at most as much as the writer's processor time.
    """

    seconds: float
    cost_seconds: float

    def as_dict(self) -> dict[str, float]:
        """Return it for a checkpoint's record."""
        return {"seconds": self.seconds, "cost_seconds": self.cost_seconds}

    @classmethod
    def from_dict(cls, stored: Any) -> SaveCost | None:
        """Return what a record says; None where it says nothing of sense."""
        if not isinstance(stored, Mapping):
            return None
        values = [stored.get(name) for name in ("seconds", "cost_seconds")]
        numbers = [value for value in values if isinstance(value, float) and 0 <= value < math.inf]
        return cls(*numbers) if len(numbers) == len(values) else None


def cost_text(interval: float, cost: SaveCost, num_bytes: int) -> str:
    """Return what saves of `num_bytes` cost that are `interval` seconds apart.

    >>> cost_text(52.0, SaveCost(2.0, 0.26), 3_800_000_000)
    'a save every 52 s, which takes 0.5 % of training and writes 6.3 TB a day'
    """
    apart = max(interval, cost.seconds, 0.001)
    share = min(1.0, cost.cost_seconds / apart)
    daily = bytes_text(int(num_bytes * _DAY_S / apart))
    return f"a save every {seconds_text(apart)}, which takes {100 * share:.2g} % of training and writes {daily} a day"


def seconds_text(seconds: float) -> str:
    """Return a time as one reads it.

    >>> [seconds_text(seconds) for seconds in (0.0213, 1.25, 52.4, 60.0)]
    ['0.021 s', '1.2 s', '52 s', '60 s']
    """
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
