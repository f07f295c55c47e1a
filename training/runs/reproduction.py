"""Whether a run's config.yaml, which holds the settings of its last session, gives the same run again; and if not, why.

A resume may change settings in the middle of a run: then no set of settings gives all of it. The sessions of the
history tell which changed and when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.checkpoints.history import History
from training.checkpoints.rows import best_epoch
from training.settings.options import SETTINGS, Options
from training.settings.setting import OnChange
from utils.shell_text import with_path

_FALLING = ("linear", "cosine")


def what_differs(history: History, options: Options) -> list[str]:
    """Return, in sentences, what training again with the last settings would do differently; nothing: the same run."""
    weights = _first_weights(history)
    return [
        *([f"it began with the weights of {weights}"] if weights else []),
        *(
            f"until step {one.step} {_flag(one.name)} was {_shown(one.old)}, from there on {_shown(one.new)}"
            for one in _changes_that_matter(history, options)
        ),
    ]


def how_to_repeat(history: History, options: Options) -> str:
    """Say what it would take to have the run again where its settings alone do not give it."""
    steps = sorted({change.step for change in _changes_that_matter(history, options)})
    weights = _first_weights(history)
    began = with_path("--model_path", weights) if weights else ""
    if not steps:
        return f"pass {began}, too"
    beginning = f"begin with {began} and the earlier values" if began else "begin with the earlier values"
    return f"{beginning}, and go on from step {', '.join(map(str, steps))} by --resume with the later ones"


@dataclass(frozen=True)
class _ChangeAt:
    """What a setting, or another thing that decides the bits, was until a step and from there on."""

    step: int
    name: str
    old: Any
    new: Any


def _first_weights(history: History) -> str:
    first = next(iter(history.sessions), None)
    return first.source if first and first.source_saved_at is None and not first.step else ""


def _changes_that_matter(history: History, options: Options) -> list[_ChangeAt]:
    """Return what training again from the beginning would do otherwise, by what changed between steps.

    What changed and changed back before the next step is no change, and neither is what changed before the first one.
    """
    net: dict[tuple[int, str], tuple[Any, Any]] = {}
    for session in history.sessions:
        for name, (old, new) in session.changes.items():
            first, _ = net.get((session.step, name), (old, new))
            net[session.step, name] = (first, new)
    changes = (_ChangeAt(step, name, old, new) for (step, name), (old, new) in net.items() if step and old != new)
    return [change for change in changes if _matters(change, history, options)]


def _matters(change: _ChangeAt, history: History, options: Options) -> bool:
    """Whether training with the new value from the beginning could have given other bits; data are always others."""
    if change.name not in SETTINGS:
        return True
    if change.name == "num_epochs":
        return options.scheduler in _FALLING
    if change.name == "patience":
        return _would_have_ended(history, change.step, change.new)
    return SETTINGS[change.name].on_change is not OnChange.FREE


def _would_have_ended(history: History, step: int, patience: int) -> bool:
    """Whether a run with this --patience would have ended before `step`, and so never come to it."""
    rows = [row for row in history.epochs if row.step <= step]
    for number, row in enumerate(rows, start=1):
        best = best_epoch([one for one in rows[:number] if one.epoch not in history.lost_epochs], history.figures)
        if 0 < patience <= row.epoch - (best.epoch if best else 0):
            return True
    return False


def _flag(name: str) -> str:
    return f"--{name}" if name in SETTINGS else f"the {name}"


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
