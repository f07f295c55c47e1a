"""The entry of the process that begins: from where it goes on, and with which settings changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.checkpoints.history import Session
from training.checkpoints.record import CheckpointRecord
from training.settings.changes import Change, every_change
from training.settings.options import Options
from utils.numerics import NUMERICS


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
    if checkpoint.numerics != NUMERICS:
        changes.append(Change("numerics", checkpoint.numerics, NUMERICS))
    return Session(
        started_at=time.time(),
        step=checkpoint.step,
        source=str(checkpoint.path),
        source_saved_at=checkpoint.saved_at_s,
        environment=dict(environment),
        changes={change.name: [_plain(change.old), _plain(change.new)] for change in changes},
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
