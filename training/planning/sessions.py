"""The entry of the process that begins: from where it goes on, and with which settings changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.checkpoints.history import Session
from training.checkpoints.record import CheckpointRecord
from training.runs.trained_names import TrainedNames, read_trained_names
from training.settings.changes import Change, every_change
from training.settings.options import Options
from utils.numerics import NUMERICS, changes_since

# What a session may change that decides on which utterances are trained on.
_CHOOSE_TRAINING = {"train protocol", "num_examples", "seed"}


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
    if changes_since(checkpoint.numerics, checkpoint.options.as_dict()):
        changes.append(Change("numerics", checkpoint.numerics, NUMERICS))
    return Session(
        started_at=time.time(),
        step=checkpoint.step,
        source=str(checkpoint.path),
        source_saved_at=checkpoint.saved_at_s,
        environment=dict(environment),
        changes={change.name: [_plain(change.old), _plain(change.new)] for change in changes},
    )


def names_trained_on(now: TrainedNames, sessions: Sequence[Session], source: Path | None) -> TrainedNames | None:
    """Return all that a run was trained on, by name, when it goes on with `now`; None where that is not known.

    `source` is the checkpoint that it goes on from, or the weights that it begins with: what those were trained on
    counts, too, where it is written beside them. A run of a version that did not write it down has always been trained
    on what it is trained on now, unless one of its sessions, the last of which begins now, changed that.
    """
    earlier = read_trained_names(source.parent) if source else None
    if earlier:
        return now.joined(earlier)
    changed = any(_CHOOSE_TRAINING & set(session.changes) for session in sessions)
    return None if changed else now


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
