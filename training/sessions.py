"""One entry for each process that trained a run: when, from which step, where, and with which settings changed.

Checkpoints carry the list, so that the run page can mark every stop and resume. A process that saves nothing leaves no
entry, as it leaves no step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.changes import Change, every_change
from training.checkpoints.record import CheckpointRecord
from training.options import Options


@dataclass(frozen=True)
class Session:
    """One process that trained.

    `started_at` is in seconds since 1970 and `step` the number of steps done before. `source` is the checkpoint that it
    went on from, saved at `source_saved_at`; None for the first process of a run, whose `source` is the file that its
    weights came from, "" for none. `environment` is what
    `training.machine.describe_environment` gives, and `changes` has name -> [old, new] for each setting, and each part
    of the data, that was another one before.
    """

    started_at: float
    step: int
    source: str
    source_saved_at: float | None
    environment: dict[str, Any]
    changes: dict[str, list[Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for payloads."""
        return asdict(self)


def begin_session(
    checkpoint: CheckpointRecord | None,
    options: Options,
    environment: Mapping[str, Any],
    changed_data: Sequence[Change] = (),
    weights: Path | None = None,
) -> Session:
    """Return the entry of this process, which goes on from `checkpoint` with `options`.

    Without one it begins a run, from the weights of a file if that is given.
    """
    if checkpoint is None:
        return Session(time.time(), 0, str(weights or ""), None, dict(environment), {})
    changes = [*every_change(checkpoint.options, options), *changed_data]
    return Session(
        started_at=time.time(),
        step=checkpoint.step,
        source=str(checkpoint.path),
        source_saved_at=checkpoint.saved_at_s,
        environment=dict(environment),
        changes={change.name: [_plain(change.old), _plain(change.new)] for change in changes},
    )


def sessions_in(payload: Mapping[str, Any]) -> list[Session]:
    """Return the entries in a payload; none in checkpoints of earlier versions."""
    return [Session(**entry) for entry in payload.get("sessions", [])]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
