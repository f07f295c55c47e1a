"""Which settings differ between two sets of them, and which of these differences matter to training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.settings.options import SETTINGS, Options
from training.settings.setting import OnChange


@dataclass(frozen=True)
class Change:
    """One setting that differs from the checkpoint's."""

    name: str
    old: Any
    new: Any


def changed_settings(old: Options, new: Options) -> tuple[Change, ...]:
    """Return every setting that matters to training and differs, in the order of declaration."""
    changes = every_change(old, new)
    return tuple(change for change in changes if SETTINGS[change.name].on_change is not OnChange.FREE)


def every_change(old: Options, new: Options) -> tuple[Change, ...]:
    """Return every setting that differs, also those without effect on what is computed."""
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in SETTINGS)
    return tuple(Change(name, before, after) for name, before, after in pairs if before != after)
