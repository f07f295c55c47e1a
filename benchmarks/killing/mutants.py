"""Faults put into the program on purpose, in forks alone: kills must show each of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks.killing.life import Program
from benchmarks.killing.phases import replace_call
from training.planning.plan import Plan
from training.runs.lock import RunLock
from training.runs.survey import survey_folder
from training.saving.store import CheckpointStore
from training.state.train_state import TrainState
from utils.atomic_files import TEMPORARY_PREFIX
from utils.errors import UserError

Call = Callable[..., Any]
SLEEP_S = 100


def _loses_the_newest_checkpoint(look: Call) -> Call:
    def forgetful(*arguments: Any) -> Any:
        for folder in Path("models").glob("*/"):
            found = survey_folder(folder)
            newest = found.latest.position if found.latest else None
            for record in found.all_checkpoints:
                if record.position == newest:
                    record.path.unlink()
        return look(*arguments)

    return forgetful


def _deletes_before_it_has_saved(save: Call) -> Call:
    def hasty(store: CheckpointStore, *arguments: Any) -> Any:
        for record in survey_folder(store.run.folder).all_checkpoints:
            record.path.unlink()
        return save(store, *arguments)

    return hasty


def _writes_under_the_final_name(_: Call) -> Call:
    @contextmanager
    def in_place(path: Path) -> Iterator[IO[bytes]]:
        with path.open("w+b") as file:
            yield file

    return in_place


def _goes_on_without_its_optimizers(restore: Call) -> Call:
    def forgetful(state: TrainState, *arguments: Any) -> None:
        restore(state, *arguments)
        for optimizer in state.optimizers.values():
            optimizer.state.clear()

    return forgetful


def _tears_a_pair(restore: Call) -> Call:
    def careless(state: TrainState, *arguments: Any) -> None:
        restore(state, *arguments)
        for of_one in next(iter(state.optimizers.values())).state.values():
            of_one["step"] += 1

    return careless


def _leaves_a_temporary(prepare: Call) -> Call:
    def untidy(plan: Plan, *arguments: Any) -> None:
        prepare(plan, *arguments)
        (plan.run.folder / f"{TEMPORARY_PREFIX}left-1-0123abcd").touch()

    return untidy


def _does_nothing(_: Call) -> Call:
    def idle(*_: Any, **__: Any) -> list[str]:
        return []

    return idle


def _is_locked_for_ever(take: Call) -> Call:
    def stubborn(lock: RunLock) -> Any:
        if lock._path.exists() and lock._path.stat().st_size:
            raise UserError(f"{lock._path} is there")
        return take(lock)

    return stubborn


def _leaves_a_process(prepare: Call) -> Call:
    def prolific(*arguments: Any) -> None:
        subprocess.Popen(["sleep", str(SLEEP_S)], start_new_session=True)
        prepare(*arguments)

    return prolific


_PREPARE = "training.loop.saving:prepare_folder"
# What is put in the place of which function, by the name of the fault.
MUTANTS: Mapping[str, tuple[str, Callable[[Call], Call]]] = {
    "loses the newest checkpoint": ("training.commands.train:collect_facts", _loses_the_newest_checkpoint),
    "deletes before it has saved": ("training.saving.store:CheckpointStore.save", _deletes_before_it_has_saved),
    "writes under the final name": ("training.saving.store:atomic_write", _writes_under_the_final_name),
    "goes on without its optimizers": (
        "training.state.train_state:TrainState.restore",
        _goes_on_without_its_optimizers,
    ),
    "tears a pair": ("training.state.train_state:TrainState.restore", _tears_a_pair),
    "leaves a temporary": (_PREPARE, _leaves_a_temporary),
    "never clears up": ("training.loop.preparation:remove_stray_temporaries", _does_nothing),
    "never deletes": ("training.saving.commit:prune", _does_nothing),
    "is locked for ever": ("training.runs.lock:FileLock.__enter__", _is_locked_for_ever),
    "leaves a process": (_PREPARE, _leaves_a_process),
}


def mutated(name: str, program: Program) -> Program:
    """Return the program with a fault; it changes the process that it runs in for good."""

    def run(arguments: Sequence[str]) -> int:
        replace_call(*MUTANTS[name])
        return program(arguments)

    return run
