"""Whether the settings of its end give a run again: a table of what changed between its sessions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from training.checkpoints.history import History, Session, UnfinishedEpoch
from training.checkpoints.rows import EpochMetrics
from training.runs.reproduction import how_to_repeat, what_differs
from training.settings.options import Options
from training.settings.tasks import DETECTION

FIGURES = {figure.name: 1.0 for figure in DETECTION.figures.all}


def session(step: int, source: str = "a.pth", saved_at: float | None = 1.0, **changes: list[Any]) -> Session:
    return Session(0.0, step, source, saved_at, {}, changes)


FIRST = session(0, "", None)


@dataclass(frozen=True)
class Row:
    why: str
    sessions: list[Session]
    differs: list[str]
    options: Options = field(default_factory=Options)


TABLE = [
    Row("one session", [FIRST], []),
    Row("stopped and gone on", [FIRST, session(3)], []),
    Row("a record of before sessions were kept", [], []),
    Row("a changed rate", [FIRST, session(3, lr=[0.1, 0.2])], ["until step 3 --lr was 0.1, from there on 0.2"]),
    Row("changed before the first step", [FIRST, session(0, lr=[0.1, 0.2])], []),
    Row("changed, and back before the next step", [FIRST, session(3, lr=[0.1, 0.2]), session(3, lr=[0.2, 0.1])], []),
    Row(
        "changed, and back later",
        [FIRST, session(3, lr=[0.1, 0.2]), session(6, lr=[0.2, 0.1])],
        ["until step 3 --lr was 0.1, from there on 0.2", "until step 6 --lr was 0.2, from there on 0.1"],
    ),
    Row("what changes no result", [FIRST, session(3, num_workers=[0, 2], comment=[None, "x"])], []),
    Row("more epochs at a constant rate", [FIRST, session(3, num_epochs=[1, 2])], []),
    Row(
        "more epochs at a rate that falls over all of them",
        [FIRST, session(3, num_epochs=[1, 2])],
        ["until step 3 --num_epochs was 1, from there on 2"],
        Options(scheduler="cosine"),
    ),
    Row("a patience that would not have ended it", [FIRST, session(9, patience=[0, 3])], []),
    Row(
        "a patience that would have ended it",
        [FIRST, session(9, patience=[0, 2])],
        ["until step 9 --patience was 0, from there on 2"],
    ),
    Row(
        "other data",
        [FIRST, replace(session(3), changes={"train protocol": ["aa", "bb"]})],
        ["until step 3 the train protocol was aa, from there on bb"],
    ),
    Row("other arithmetic", [FIRST, session(3, numerics=[1, 2])], ["until step 3 the numerics was 1, from there on 2"]),
    Row("begun with weights", [session(0, "w.pth", None)], ["it began with the weights of w.pth"]),
]


def history(sessions: list[Session]) -> History:
    """Three epochs of three steps, the first one the best."""
    made = History(DETECTION.figures, UnfinishedEpoch(3), (("run", 0),), sessions=sessions)
    for epoch in (1, 2, 3):
        made.complete_epoch(EpochMetrics(epoch, 3 * epoch, FIGURES, 1e-6), 3)
    return made


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.why)
def test_what_differs_is_what_training_again_would_do_otherwise(row: Row) -> None:
    assert what_differs(history(row.sessions), row.options) == row.differs


def test_what_it_takes_names_the_steps_and_the_weights() -> None:
    told = how_to_repeat(history([session(0, "w.pth", None), session(3, lr=[0.1, 0.2])]), Options())
    assert told == (
        "begin with --model_path w.pth and the earlier values, and go on from step 3 by --resume with the later ones"
    )
