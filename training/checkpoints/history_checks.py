"""What the past of a run looks like in a payload, as checks: nothing of it is taken over before all of it passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from utils.stored_values import (
    Check,
    OddValueError,
    anything,
    is_count,
    is_duration,
    is_list_of,
    is_number,
    is_plain_name,
    is_table_of,
    is_text,
    is_time,
    optional,
    require,
    require_plain,
)


def is_lineage(value: Any) -> bool:
    """Whether these are pairs of a run's id and the step that it began at, one at least."""
    return bool(value) and is_list_of(_is_branch)(value)


def _is_branch(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and is_plain_name(value[0]) and is_count(value[1])


_NONE: Mapping[str, Check] = {}
_is_table = is_table_of(anything)
_PAST: Mapping[str, Check] = {
    "epoch": is_count,
    "step": is_count,
    "history": is_list_of(_is_table),
    "validations": is_list_of(_is_table),
    "lost_epochs": is_list_of(is_count),
    "times": is_list_of(_is_table),
    "lineage": is_lineage,
    "training_seconds": is_duration,
    "seconds_in_epoch": is_duration,
    "unfinished_epoch": _is_table,
}
_LATER: Mapping[str, Check] = {
    "validation_times": is_list_of(is_time),
    "sessions": is_list_of(_is_table),
    "pace": _is_table,
}
_UNDER_WAY: Mapping[str, Check] = {
    "batches_per_epoch": is_count,
    "batches_done": is_count,
    "utterances": is_count,
    "loss_sum": is_number,
}
_TIME: Mapping[str, Check] = {"epoch": is_count, "finished_at": is_time, "seconds": is_duration}
_MEASURED: Mapping[str, Check] = {"step_ms": optional(is_duration), "blocked_seconds": optional(is_duration)}
_PACE: Mapping[str, Check] = {"steps": is_count, "step_seconds": is_duration, "blocked_seconds": is_duration}
_SESSION: Mapping[str, Check] = {
    "started_at": is_time,
    "step": is_count,
    "source": is_text,
    "source_saved_at": optional(is_time),
    "environment": _is_table,
    "changes": is_table_of(lambda value: isinstance(value, list | tuple) and len(value) == 2),
}


def require_history(payload: Mapping[str, Any]) -> None:
    """Raise OddValueError for what a payload says of its run's past and cannot be, KeyError for what it does not say.

    Rows of figures are checked where they are read. Validations that an earlier version did not time have no times.
    """
    require({name: payload[name] for name in _PAST}, _PAST)
    later = {name: payload[name] for name in _LATER if name in payload}
    require(later, {name: _LATER[name] for name in later})
    require(payload["unfinished_epoch"], _UNDER_WAY)
    if payload["unfinished_epoch"]["batches_done"] > payload["unfinished_epoch"]["batches_per_epoch"]:
        raise OddValueError("more batches of its epoch are done than there are")
    for row in payload["times"]:
        _require_exactly(row, _TIME, _MEASURED)
    for row in later.get("sessions", ()):
        _require_exactly(row, _SESSION)
        require_plain(row)
    if later.get("pace"):
        _require_exactly(later["pace"], {}, _PACE)
    numbers = list(range(1, payload["epoch"] + 1)) if payload["epoch"] <= len(payload["history"]) else []
    for name in ("history", "times"):
        if [row.get("epoch") for row in payload[name]] != numbers:
            raise OddValueError(f"its {name} is not that of {payload['epoch']} epochs")
    if later.get("validation_times") and len(later["validation_times"]) != len(payload["validations"]):
        raise OddValueError("it has not as many times as validations")


def require_figures(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Raise OddValueError where a row lacks a figure of the task."""
    for row in rows:
        if missing := [name for name in names if name not in row]:
            raise OddValueError(f"a row of its past lacks {', '.join(missing)}")


def _require_exactly(row: Mapping[str, Any], checks: Mapping[str, Check], later: Mapping[str, Check] = _NONE) -> None:
    """Check a row that is made into one of our own: a key too many is refused, one of `later` may be missing."""
    require(row, {**checks, **{name: check for name, check in later.items() if name in row}})
    if surplus := set(row) - set(checks) - set(later):
        raise OddValueError(f"it has a key that is not known: {', '.join(sorted(map(ascii, surplus)))[:80]}")
