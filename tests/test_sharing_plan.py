"""How many batches a step several processes plan for, which numbers of them fit, and in which folder they train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.asking import asked_training
from tests.records import record, write_checkpoint
from training.planning.announcements import plan_text
from training.planning.decide import decide
from training.planning.facts import collect_facts
from training.planning.plan import Plan, Start
from training.runs.directory import RUNS_ROOT
from training.settings.identity import run_name
from training.settings.options import Options
from utils.errors import EXIT_USAGE, UserError

DOCUMENTED = run_name(Options())
UNTYPED, TYPED = DOCUMENTED, f"{DOCUMENTED}_accumulate_steps4"
LONGER = DOCUMENTED.replace("_100_", "_150_")


def plan_of(num_ranks: int, *typed: object) -> Plan:
    command = asked_training(*typed)
    return decide(command, collect_facts(command), num_ranks)


def trained_by(folder: str, num_batches: int, epochs: int = 5, **changes: Any) -> Path:
    path = RUNS_ROOT / folder / f"checkpoint_epoch_{epochs}.pth"
    write_checkpoint(path, record(path, epochs, options=Options(accumulate_steps=num_batches, **changes)))
    return path


@pytest.mark.usefixtures("workplace")
def test_a_new_run_takes_one_batch_a_process_and_says_so() -> None:
    plan = plan_of(4)
    assert (plan.options.accumulate_steps, plan.run.folder.name) == (4, DOCUMENTED)
    assert "processes:   4 processes: 4 batches of 16 a step" in plan_text(plan)
    assert plan_of(1).options.accumulate_steps == 1
    assert "processes" not in plan_text(plan_of(1))


# (what was trained, in which folder, by how many; what is typed, the processes now; the folder, the batches a step)
GOES_ON: list[tuple[str, tuple[str, int], str, int, str, int]] = [
    ("fewer processes", (UNTYPED, 4), "--auto_resume", 2, UNTYPED, 4),
    ("one process", (UNTYPED, 4), "--auto_resume", 1, UNTYPED, 4),
    ("as many", (UNTYPED, 4), "--auto_resume", 4, UNTYPED, 4),
    ("of a typed number", (TYPED, 4), "--auto_resume --accumulate_steps 4", 2, TYPED, 4),
    ("longer", (UNTYPED, 4), "--auto_resume --num_epochs 150", 2, LONGER, 4),
    ("by --resume", (UNTYPED, 4), "--resume --model_path {path}", 2, UNTYPED, 4),
    ("longer, by --resume", (UNTYPED, 4), "--resume --model_path {path} --num_epochs 150", 2, LONGER, 4),
    (
        "of one process by several, given now",
        (UNTYPED, 1),
        "--resume --model_path {path} --accumulate_steps 2",
        2,
        "",
        2,
    ),
]


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("row", GOES_ON, ids=lambda row: row[0])
def test_a_run_keeps_its_number_of_batches_and_its_folder(row: tuple[str, tuple[str, int], str, int, str, int]) -> None:
    why, (trained_in, batches), typed, num_ranks, folder, expected = row
    path = trained_by(trained_in, batches)
    plan = plan_of(num_ranks, *typed.format(path=path).split())
    assert plan.start is Start.RESUME, why
    assert plan.options.accumulate_steps == expected
    assert plan.run.folder.name == (folder or f"{DOCUMENTED}_accumulate_steps2")


# (processes, batches a step in the checkpoint, what is typed, the words of the refusal)
REFUSED = [
    (3, 4, "--auto_resume", "3 processes cannot share 4 batches a step (--accumulate_steps) equally: start 1, 2 or 4"),
    (8, 4, "--auto_resume", "8 processes cannot share 4 batches a step"),
    (2, 1, "--auto_resume", "2 processes cannot share 1 batch a step (--accumulate_steps) equally: start 1 of them"),
    (2, None, "--model_type hifigan --accumulate_steps 3", "2 processes cannot share 3 batches a step"),
    (4, None, "--accumulate_steps 6", "4 processes cannot share 6 batches a step (--accumulate_steps) equally"),
]


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("num_ranks", "batches", "typed", "words"), REFUSED)
def test_a_number_of_processes_that_does_not_divide_the_batches_is_refused_with_those_that_do(
    num_ranks: int, batches: int | None, typed: str, words: str
) -> None:
    if batches:
        trained_by(UNTYPED, batches)
    with pytest.raises(UserError) as refused:
        plan_of(num_ranks, *typed.split())
    assert words in str(refused.value)
    assert refused.value.exit_code == EXIT_USAGE
    assert not batches or RUNS_ROOT.exists()


@pytest.mark.usefixtures("workplace")
def test_a_run_at_its_target_is_at_its_target_for_any_number_of_processes() -> None:
    trained_by(UNTYPED, 4, epochs=100)
    assert plan_of(3, "--auto_resume").start is Start.REACHED
