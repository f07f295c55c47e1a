"""Sealed files with odd records, one value changed at a time: none stops a verb or hides the good file beside it."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from main import main
from tests.asking import asked_training
from tests.forging import ODD, Place, changed, is_harmless, places_in, write_forged
from tests.records import record, validated, write_checkpoint
from training.checkpoints.examined import examine
from training.checkpoints.record import CheckpointRecord
from training.commands import train
from training.planning.decide import decide
from training.planning.facts import collect_facts
from training.runs.directory import RunDirectory
from training.settings.options import Options
from utils.errors import UserError

TYPED = ["--database_path", "a corpus", "--ssl_model", "compact"]
RUN = RunDirectory.of(Options(database_path="a corpus", ssl_model="compact"))
GOOD = RUN.epoch_checkpoint(3)
DECISION = {
    "step": 20,
    "threshold": 0.25,
    "scale": 1.5,
    "offset": -0.5,
    "num_bona_fide": 20,
    "num_spoof": 20,
    "miss_rate": 0.1,
    "false_alarm_rate": 0.1,
}
SEED = 11
SAMPLED = 2
IN_A_FOLDER = 60


def base() -> dict[str, Any]:
    """Return the record of a checkpoint of the run, with everything in it that a record may have."""
    made = replace(
        record(RUN.epoch_checkpoint(2), 2, options=Options(database_path="a corpus", ssl_model="compact")),
        name=RUN.epoch_checkpoint(2).name,
        validated=validated(20, 2),
        kept={"decision": DECISION},
        metadata={"num_threads": 1, "saved_at": 1.7e9, "run_folder": "/somewhere", "environment": {"gpu": ["none"]}},
    )
    plain: dict[str, Any] = json.loads(json.dumps(made.as_dict()))
    return plain


def forgeries() -> list[tuple[Place, Any]]:
    """Return every place with some odd values, and the outer ones, where most is decided, with all of them."""
    chance = random.Random(SEED)
    found = [
        (place, value)
        for place in places_in(base())
        for value in (ODD if len(place) == 1 or place[0] == "decision" else chance.sample(ODD, SAMPLED))
    ]
    chance.shuffle(found)
    return found


def said_by(capsys: pytest.CaptureFixture[str], *typed: object) -> str:
    code = main([*map(str, typed)])
    said = capsys.readouterr()
    assert code in (0, 1), said.err
    assert is_harmless(said.out) and is_harmless(said.err), said
    return said.out + said.err


def look_at_everything(folder: Path, forged: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--json"]):
        assert GOOD.name in said_by(capsys, "--list_checkpoints", *TYPED, *more)
        assert GOOD.name in said_by(capsys, "--validate_checkpoints", folder, *more)
        for path in forged:
            said_by(capsys, "--inspect_checkpoint", path, *more)
    for typed in (["--auto_resume"], ["--auto_resume", "--comment", "neighbour"], []):
        with suppress(UserError):
            request = asked_training(*TYPED, *typed)
            train.announce(decide(request, collect_facts(request)))
    with suppress(UserError):
        request = asked_training(*TYPED, "--resume", "--model_path", GOOD)
        train.announce(decide(request, collect_facts(request)))
    assert is_harmless(capsys.readouterr().out)
    assert isinstance(examine(GOOD), CheckpointRecord)


def test_no_odd_value_in_a_record_stops_a_verb_or_hides_the_good_file(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RUN.folder.mkdir(parents=True)
    write_checkpoint(GOOD, record(GOOD, 3, options=Options(database_path="a corpus", ssl_model="compact")))
    everything = forgeries()
    assert len(everything) > 700
    for first in range(0, len(everything), IN_A_FOLDER):
        forged = []
        for number, (place, value) in enumerate(everything[first : first + IN_A_FOLDER]):
            path = RUN.folder / f"forged_{number}.pth"
            write_forged(path, changed(base(), place, value))
            forged.append(path)
        look_at_everything(RUN.folder, forged, capsys)


@pytest.mark.parametrize("value", ODD[1:], ids=lambda value: ascii(value)[:20])
def test_a_record_that_is_something_else_is_refused(value: Any, workplace: Path) -> None:
    RUN.folder.mkdir(parents=True)
    write_forged(RUN.epoch_checkpoint(2), value)
    assert not isinstance(examine(RUN.epoch_checkpoint(2)), CheckpointRecord)
