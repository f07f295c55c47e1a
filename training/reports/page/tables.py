"""The tables of the run page as rows of plain values: sessions, checkpoints, settings, environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from training.checkpoints.history import Session
from training.checkpoints.record import CheckpointRecord, Kind
from training.reports.page.epoch_table import NEWEST_SESSIONS
from training.reports.page.wording import duration_text, figure, time_text, value_text
from training.reports.story import Story
from training.runs.survey import RunFolder
from training.settings.options import SETTINGS
from utils.terminal_text import bytes_text

NEWEST_CHECKPOINTS = 100
"""So many are shown, and the best one."""
_ENVIRONMENT = {
    "host": "Machine",
    "device": "Device",
    "num_threads": "Threads",
    "python": "Python",
    "torch": "torch",
    "git_commit": "Commit of the program",
}


@dataclass(frozen=True)
class Changed:
    """A setting that a session had another value for than the one before."""

    name: str
    old: str
    new: str


@dataclass(frozen=True)
class SessionRow:
    """One process that trained; `began` says where, `source` from what, `elsewhere` how its machine differs."""

    number: int
    step: int
    started: str
    began: str
    source: str
    pause: str
    changes: tuple[Changed, ...]
    elsewhere: tuple[Changed, ...]


@dataclass(frozen=True)
class SettingRow:
    """One setting: `default` is "" where the value is the default; `history` are its changes, session by session."""

    name: str
    value: str
    default: str
    help: str
    history: tuple[str, ...]


@dataclass(frozen=True)
class CheckpointRow:
    """One checkpoint file; `marks` say what it is beside one of its row: best, last."""

    name: str
    after: str
    step: str
    deciding: str
    size: str
    saved: str
    marks: tuple[str, ...]


def session_rows(story: Story, folder: Path) -> list[SessionRow]:
    """Return the processes that trained, first to last: the newest, and of the others those that changed something.

    A checkpoint in the run's own `folder` goes by its name.
    """
    rows = []
    newest = len(story.history.sessions) + 1 - NEWEST_SESSIONS
    before: Session | None = None
    for number, session in enumerate(story.history.sessions, start=1):
        pause, source = "", Path(session.source)
        if session.source_saved_at is not None:
            pause = duration_text(session.started_at - session.source_saved_at)
        elsewhere = _differing(before.environment, session.environment) if before else ()
        before = session
        if 1 < number < newest and not session.changes and not elsewhere:
            continue
        rows.append(
            SessionRow(
                number=number,
                step=session.step,
                started=time_text(session.started_at),
                began=_where(story, session.step),
                source=source.name if source.parent == folder else session.source,
                pause=pause,
                changes=tuple(
                    Changed(name, value_text(old), value_text(new)) for name, (old, new) in session.changes.items()
                ),
                elsewhere=elsewhere,
            )
        )
    return rows


def _where(story: Story, step: int) -> str:
    if not step:
        return "the beginning"
    epochs = story.history.epochs_at(step)
    if abs(epochs - round(epochs)) < 1e-9:
        return f"the end of epoch {round(epochs)} (step {step:,})"
    return f"within epoch {int(epochs) + 1} (step {step:,})"


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Changed, ...]:
    names = (name for name in _ENVIRONMENT if before.get(name) != now.get(name))
    return tuple(
        Changed(_ENVIRONMENT[name].lower(), value_text(before.get(name)), value_text(now.get(name))) for name in names
    )


def environment_rows(story: Story) -> list[tuple[str, str]]:
    """Return where and with what the last session trains; no rows where that is not known."""
    sessions = story.history.sessions
    if not sessions:
        return []
    environment = sessions[-1].environment
    rows = [(title, value_text(environment.get(name))) for name, title in _ENVIRONMENT.items()]
    if story.num_parameters is not None:
        rows.append(("Parameters", f"{story.num_parameters:,}"))
    return rows


def setting_groups(story: Story) -> list[tuple[str, list[SettingRow]]]:
    """Return every setting with its group; what differs from the default says so."""
    options = story.options
    rows = [(SETTINGS[name].group, _setting(name, value, story)) for name, value in options.as_dict().items()]
    return [(group, [row for _, row in found]) for group, found in groupby(rows, key=lambda pair: pair[0])]


def _setting(name: str, value: Any, story: Story) -> SettingRow:
    default = value_text(story.options.default_of(name))
    return SettingRow(
        name=name,
        value=value_text(value),
        default="" if value_text(value) == default else default,
        help=SETTINGS[name].help,
        history=tuple(
            f"{value_text(session.changes[name][0])} → {value_text(session.changes[name][1])} in session {number}"
            for number, session in enumerate(story.history.sessions, start=1)
            if name in session.changes
        ),
    )


def checkpoint_rows(folder: RunFolder, story: Story) -> list[CheckpointRow]:
    """Return the newest checkpoints on disk and the best one, each once under its own name, the newest first."""
    best, first = story.history.best, story.history.figures.first
    latest = folder.latest.position if folder.latest else None
    own = sorted(named_checkpoints(folder), key=lambda record: record.position, reverse=True)
    older = [record for record in own[NEWEST_CHECKPOINTS:] if best and record.last == best]
    return [
        CheckpointRow(
            name=record.path.name,
            after=_after(record),
            step=f"{record.step:,}",
            deciding=figure(record.validated[first.name] if record.validated else None, first.decimals),
            size=bytes_text(record.bytes_on_disk),
            saved=figure(None) if record.saved_at_s is None else time_text(record.saved_at_s),
            marks=(
                *(["best"] if record.kind is Kind.EPOCH and best and record.last == best else []),
                *(["last"] if record.position == latest else []),
            ),
        )
        for record in (*own[:NEWEST_CHECKPOINTS], *(one for one in older if one.kind is Kind.EPOCH))
    ]


def named_checkpoints(folder: RunFolder) -> list[CheckpointRecord]:
    """Return the checkpoints on disk, each once: the best one under the best name only where it has no other."""
    return [record for record in folder.listed if record is not folder.best or _is_alone(record, folder)]


def _is_alone(best: CheckpointRecord, folder: RunFolder) -> bool:
    """Whether the file under the best name is the only one left of its epoch."""
    named: Sequence[CheckpointRecord] = [*folder.checkpoints, *([folder.last] if folder.last else [])]
    return all((record.position, record.run_id) != (best.position, best.run_id) for record in named)


def _after(record: CheckpointRecord) -> str:
    return record.progress_in_epoch if record.batches_done else f"epoch {record.epoch}"
