"""A copied run folder that both copies continue is two futures of one past, and each keeps what is its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path

import pytest

from main import main
from tests.conftest import SMALL_RUN, DuringStep
from tests.records import record
from training.checkpoints.record import CheckpointRecord
from training.planning.decide import decide
from training.planning.facts import Facts
from training.planning.plan import Plan
from training.runs.directory import RunDirectory
from training.runs.retention import RetentionPolicy, files_to_prune
from training.runs.survey import Candidates, RunFolder, place_of, survey_folder
from training.settings.options import Options
from training.settings.requests import AutoResume

RUN = RunDirectory.of(Options()).folder
MACHINE: dict[str, object] = {"num_threads": 1, "torch": "2", "device": "cpu"}


def plan_in(place: str, metadata: dict[str, object]) -> Plan:
    """Return the plan of a start that finds a checkpoint with `metadata` in a run folder at `place`."""
    source = record(RUN / "checkpoint_epoch_5.pth", 5, metadata=metadata)
    run = RunFolder(RUN, (source,), entries=(source.path.name,), place=place)
    options = Options()
    return decide(AutoResume(options=options), Facts(options, run, candidates=Candidates(source, ())))


def train(workplace: Path, corpus: Path, during_step: DuringStep, stop_after: int | None = None) -> CheckpointRecord:
    """Train the one run of a workplace, on to its end or for some steps, and return its furthest checkpoint."""
    workplace.mkdir(exist_ok=True)
    during_step({stop_after: lambda: signal.raise_signal(signal.SIGTERM)} if stop_after else {})
    with contextlib.chdir(workplace):
        typed = ["--database_path", str(corpus), *SMALL_RUN, "--num_epochs", "2", "--auto_resume"]
        assert main(typed) == (143 if stop_after else 0)
    (folder,) = (workplace / "models").iterdir()
    latest = survey_folder(folder).latest
    assert latest is not None
    return latest


def test_a_checkpoint_says_where_its_run_folder_was(tmp_path: Path, corpus: Path, during_step: DuringStep) -> None:
    stopped = train(tmp_path, corpus, during_step, stop_after=1)
    (folder,) = (tmp_path / "models").iterdir()
    assert stopped.place == place_of(folder) == str(folder.resolve())


def test_a_run_folder_that_is_elsewhere_begins_a_branch_and_says_so() -> None:
    plan = plan_in("/new/models/run", {**MACHINE, "run_folder": "/old/models/run"})
    assert plan.begins_branch
    assert any(
        note.startswith("checkpoint_epoch_5.pth was written in /old/models/run, and lies in /new/models/run now: ")
        for note in plan.notes
    )


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"run_folder": "/old/models/run"}, "it is where it was"),
        ({"run_folder": "/old/models/run", "host": "node17"}, "Slurm goes on with it on another node"),
        ({}, "a version that recorded no place saved it"),
        ({"run_folder": 7}, "what is recorded is no place"),
        ({"run_folder": ""}, "nobody knew the place"),
    ],
)
def test_a_run_folder_not_known_to_be_elsewhere_begins_no_branch(metadata: dict[str, object], why: str) -> None:
    plan = plan_in("/old/models/run", {**MACHINE, **metadata})
    assert not plan.begins_branch, why
    assert not any("branch" in note for note in plan.notes), why


def test_a_link_to_the_run_folder_is_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    assert place_of(tmp_path / "models" / "run") == place_of(tmp_path / "disk" / "run")


def test_two_copies_that_both_go_on_have_two_run_ids_and_neither_prunes_what_the_other_made(
    tmp_path: Path, corpus: Path, during_step: DuringStep
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    past = train(first, corpus, during_step, stop_after=4)
    shutil.copytree(first, second)
    in_copy, in_original = train(second, corpus, during_step), train(first, corpus, during_step)
    assert in_original.step == in_copy.step > past.step
    assert in_original.run_id == past.run_id, "the original is where it was"
    assert in_copy.run_id != past.run_id
    everything_goes = RetentionPolicy(save_best_only=True)
    for own in (in_original, in_copy):
        gone = files_to_prune([in_original, in_copy], own.lineage, everything_goes, None)
        assert gone == [own.path]


def test_lineage_grows_once_for_a_new_place_and_not_with_every_start(
    tmp_path: Path, corpus: Path, during_step: DuringStep
) -> None:
    was, now = tmp_path / "was", tmp_path / "now"
    stopped = train(was, corpus, during_step, stop_after=1)
    same_place = train(was, corpus, during_step, stop_after=1)
    was.rename(now)
    moved = train(now, corpus, during_step, stop_after=1)
    same_new_place = train(now, corpus, during_step)
    assert same_place.lineage == stopped.lineage
    assert moved.lineage[:-1] == stopped.lineage
    assert moved.lineage[-1][1] == same_place.step
    assert same_new_place.lineage == moved.lineage
