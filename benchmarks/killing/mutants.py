"""Faults put into the program on purpose, in forks alone: kills must show each of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks.killing.life import Program
from training.commands import train
from training.loop import preparation, session
from training.planning.plan import Plan
from training.runs.lock import RunLock
from training.runs.survey import survey_folder
from training.saving import commit, store
from training.state.train_state import TrainState
from utils.atomic_files import TEMPORARY_PREFIX
from utils.errors import UserError

SLEEP_S = 100


def _loses_the_newest_checkpoint() -> None:
    look = train.collect_facts

    def forgetful(*arguments: Any) -> Any:
        for folder in Path("models").glob("*/"):
            found = survey_folder(folder)
            newest = found.latest.position if found.latest else None
            for record in found.all_checkpoints:
                if record.position == newest:
                    record.path.unlink()
        return look(*arguments)

    train.collect_facts = forgetful


def _deletes_before_it_has_saved() -> None:
    save = store.CheckpointStore.save

    def hasty(self: store.CheckpointStore, *arguments: Any) -> Path:
        for record in survey_folder(self.run.folder).all_checkpoints:
            record.path.unlink()
        return save(self, *arguments)

    store.CheckpointStore.save = hasty  # type: ignore[method-assign]


def _goes_on_without_its_optimizers() -> None:
    restore = TrainState.restore

    def forgetful(self: TrainState, *arguments: Any) -> None:
        restore(self, *arguments)
        for optimizer in self.optimizers.values():
            optimizer.state.clear()

    TrainState.restore = forgetful  # type: ignore[method-assign]


def _writes_under_the_final_name() -> None:
    @contextmanager
    def in_place(path: Path) -> Iterator[IO[bytes]]:
        with path.open("w+b") as file:
            yield file

    store.atomic_write = in_place  # type: ignore[attr-defined, assignment]


def _leaves_a_temporary() -> None:
    prepare = session.prepare_folder

    def untidy(plan: Plan, *arguments: Any) -> None:
        prepare(plan, *arguments)
        (plan.run.folder / f"{TEMPORARY_PREFIX}left-1-0123abcd").touch()

    session.prepare_folder = untidy  # type: ignore[attr-defined, assignment]


def _never_clears_up() -> None:
    def lazy(*_: Any, **__: Any) -> list[str]:
        return []

    preparation.remove_stray_temporaries = lazy  # type: ignore[attr-defined]


def _never_deletes() -> None:
    def generous(*_: Any) -> list[str]:
        return []

    commit.prune = generous


def _is_locked_for_ever() -> None:
    take = RunLock.__enter__

    def stubborn(self: RunLock) -> RunLock:
        if self._path.exists() and self._path.stat().st_size:
            raise UserError(f"{self._path} is there")
        return take(self)

    RunLock.__enter__ = stubborn  # type: ignore[method-assign]


def _leaves_a_process() -> None:
    prepare = session.prepare_folder

    def prolific(*arguments: Any) -> None:
        subprocess.Popen(["sleep", str(SLEEP_S)], start_new_session=True)
        prepare(*arguments)

    session.prepare_folder = prolific  # type: ignore[attr-defined]


MUTANTS: Mapping[str, Callable[[], None]] = {
    "loses the newest checkpoint": _loses_the_newest_checkpoint,
    "deletes before it has saved": _deletes_before_it_has_saved,
    "writes under the final name": _writes_under_the_final_name,
    "goes on without its optimizers": _goes_on_without_its_optimizers,
    "leaves a temporary": _leaves_a_temporary,
    "never clears up": _never_clears_up,
    "never deletes": _never_deletes,
    "is locked for ever": _is_locked_for_ever,
    "leaves a process": _leaves_a_process,
}


def mutated(name: str, program: Program) -> Program:
    """Return the program with a fault; it changes the process that it runs in for good."""

    def run(arguments: Sequence[str]) -> int:
        MUTANTS[name]()
        return program(arguments)

    return run
