"""How one setting is declared: default, help, limits and what a change on resume means; and the checks of a value."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any

from utils.errors import EXIT_USAGE, UserError

GROUPS = ("data", "augmentation", "detector", "training", "machine", "saving", "run", "wandb", "heatmaps")
"""The groups of settings in the order of --help, config.yaml and whatever else tells all settings."""


class OnChange(enum.Enum):
    """What it means that a resumed run has another value than its checkpoint."""

    REFUSED = "the weights would no longer fit or mean the same: resuming is refused"
    BREAKS_EPOCH = "the rest of a half-done epoch would be another one: refused in mid-epoch, reported between epochs"
    REPORTED = "training goes on with the new value: reported"
    FREE = "no effect on what is computed: not reported"


@dataclass(frozen=True)
class Setting:
    """How one setting appears to the user, and the values it may have."""

    group: str
    help: str
    on_change: OnChange
    choices: tuple[str, ...] = ()
    above: float = -math.inf
    at_least: float = -math.inf
    at_most: float = math.inf
    is_time: bool = False  # in seconds, which may be typed as 60s, 5m or 1h


def setting(default: Any, group: str, on_change: OnChange, text: str, **limits: Any) -> Any:
    """Declare one field of Options."""
    return field(default=default, metadata={"setting": Setting(group, text, on_change, **limits)})


_SECONDS_OF = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_in(text: str) -> float:
    """Return a time in seconds, of text such as 90, 60s, 5m or 1h; raises ValueError.

    >>> seconds_in("90"), seconds_in("5m"), seconds_in("1.5h")
    (90.0, 300.0, 5400.0)
    """
    number = text.strip()
    unit = _SECONDS_OF.get(number[-1:])
    return float(number[:-1]) * unit if unit else float(number)


def check_value(name: str, value: Any, declared: Setting) -> None:
    """Raise UserError, in the words of the flag, for a value that a setting may not have."""
    if value is None:
        return
    if declared.choices and value not in declared.choices:
        raise UserError(f"--{name} must be one of {', '.join(declared.choices)}, found {value!r}", EXIT_USAGE)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise UserError(f"--{name} must be a finite number, found {value}", EXIT_USAGE)
    if value < declared.at_least:
        raise UserError(f"--{name} must be at least {declared.at_least:g}, found {value}", EXIT_USAGE)
    if value > declared.at_most:
        raise UserError(f"--{name} must be at most {declared.at_most}, found {value}", EXIT_USAGE)
    if value <= declared.above:
        raise UserError(f"--{name} must be above {declared.above:g}, found {value}", EXIT_USAGE)


def check_part_of_a_path(name: str, text: str | None) -> None:
    """Refuse what cannot be part of a file or folder name."""
    if text is None:
        return
    if not text or any(c in "/\\" or not c.isprintable() for c in text) or len(text.encode()) > 100:
        raise UserError(
            f"--{name} becomes part of file names: at most 100 bytes and no slash or line break, found {text!r}",
            EXIT_USAGE,
        )
    if text != text.strip():
        raise UserError(f"--{name} becomes part of file names: no space at its ends, found {text!r}", EXIT_USAGE)
    if text in (".", ".."):
        raise UserError(f"--{name} becomes part of file names and cannot be {text!r}: pass a word", EXIT_USAGE)
