"""What `python -m benchmarks.kills` does, on the task of two networks: it passes the program, and notices its mutants.

Every feature and many kills are `make soak`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.killing import ends, trying
from benchmarks.killing.life import Death, Life
from benchmarks.killing.mutants import mutated
from benchmarks.killing.phases import NAMES, STARTING, STEP, Aim, import_phases
from benchmarks.killing.scenarios import TWO_NETWORKS
from benchmarks.killing.trying import Kills, drawn_aims
from main import main
from tests.crash_states.scenarios import warm_up
from tests.toy_task import registered

WRITING = "writing a checkpoint"


@pytest.fixture(scope="module")
def imported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """All that the forks use is imported before they are made."""
    import_phases()
    warm_up(tmp_path_factory.mktemp("warm"), corpus)


@pytest.fixture(autouse=True)
def known(imported: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(trying, "MOST_DEATHS", 4)
    with registered():
        yield


def kills_of(place: Path, corpus: Path, mutant: str = "") -> Kills:
    program = mutated(mutant, main) if mutant else main
    return Kills(place, corpus, seed=7, one_fresh_in=0, program=program)


def test_a_killed_training_passes_and_it_is_told_in_which_phase_it_died(corpus: Path, tmp_path: Path) -> None:
    kills = kills_of(tmp_path, corpus)
    kills.try_out(TWO_NETWORKS[0], 0)
    assert kills.failures == []
    assert kills.compared == 1
    assert kills.done >= 1
    assert sum(kills.phases.values()) == kills.done
    assert set(kills.phases) <= set(NAMES)


MUTANTS = [
    ("loses the newest checkpoint", "(2, 0), None"),
    ("goes on without its optimizers", "best_checkpoint"),
    ("tears a pair", "of two steps"),
    ("leaves a temporary", "not removed at the next start"),
    ("is locked for ever", ".lock is there"),
    ("leaves a process", "processes are left"),
]


@pytest.mark.parametrize(("mutant", "notice"), MUTANTS)
def test_a_program_with_this_fault_does_not_pass(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: str, notice: str
) -> None:
    monkeypatch.setattr(ends, "SECONDS_TO_LEAVE", 0.2)
    moments = itertools.cycle([Aim(WRITING, 3, 0.0), Aim(STEP.name, 1, 0.0)])
    monkeypatch.setattr(trying, "drawn_aims", lambda *_, is_first: (next(moments),))
    monkeypatch.setattr(trying, "DEATHS", (Death.KILL,))
    kills = kills_of(tmp_path, corpus, mutant)
    kills.try_out(TWO_NETWORKS[0], 0)
    assert [failure for failure in kills.failures if notice in failure], kills.failures


@pytest.mark.parametrize("phase", [STEP.name, WRITING])
def test_a_process_dies_in_the_phase_that_was_aimed_at(corpus: Path, tmp_path: Path, phase: str) -> None:
    words = TWO_NETWORKS[0].commands[0].at(tmp_path, corpus, has_trained=False)
    life = Life(tmp_path, (*words, "--sync_save"), (Aim(phase, 2, 0.0),))
    life.wait()
    assert (life.exit_code, life.where) == (-9, phase)


def test_every_phase_of_a_command_is_aimed_at_and_any_instant() -> None:
    lasted = {STEP.name: (9, 0.1), WRITING: (3, 0.2), "moving aside": (1, 0.1)}
    draw = random.Random(1)
    drawn = {
        is_first: [drawn_aims(lasted, 10.0, draw, is_first=is_first) for _ in range(100)] for is_first in (False, True)
    }
    assert {aims[0].phase for aims in drawn[False]} == {STARTING.name, *lasted}
    once = {is_first: [aims for aims in found if aims[0].phase == "moving aside"] for is_first, found in drawn.items()}
    assert all(aims[1].phase == STEP.name for aims in once[False]), "it may not come again"
    assert len(once[True]) > 40 > len(once[False]), "only the first start has it for sure"
