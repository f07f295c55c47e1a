"""Records a piece of work in a folder, together with what the program took for done and durable by then.

What is told does not come from the system calls, else a missing one would not be missed: a promise is the return of a
function that makes one. `utils/atomic_files.py` promises a path, the store a checkpoint, until retention lets it go.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from tests.crash_states.disk import Recording, disk_of, recording_of
from tests.system_calls.recorder import Fault, trace
from training.runs import moving_aside
from training.runs.directory import RunDirectory
from training.saving import commit
from training.saving.store import CheckpointStore
from utils import atomic_files, moving

Work = Callable[[], int | None]
_PROMISING = ("link_or_copy", "make_folder")
"""Functions of utils/atomic_files.py whose last argument is durable once they return."""
_HOME = {"move_durably": moving, "complete_interrupted_move": moving_aside, "prune": commit}
"""Where other functions than those of utils/atomic_files.py are that promise something."""


@dataclass(frozen=True)
class Told:
    """What the program took for done: a `durable` path, a `checkpoint` that is; one that is `released`, then `gone`.

    One that is `moving` is still there or has its name `to` from now on.
    """

    what: str
    path: str
    to: str = ""

    @classmethod
    def read(cls, told: bytes) -> Told:
        """Return what a step tells."""
        return cls(**json.loads(told))

    @classmethod
    def read_all(cls, file: int) -> list[Told]:
        """Return all that was told in an open file; a process that was killed while it told leaves half of the last."""
        text, decoder, at = os.pread(file, os.fstat(file).st_size, 0).decode(), json.JSONDecoder(), 0
        found = []
        while at < len(text):
            try:
                told, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError:
                if "}" in text[at:]:
                    raise
                break
            found.append(cls(**told))
        return found


def record(folder: Path, *works: Work, faults: Sequence[Fault] = ()) -> Recording:
    """Return what happens in `folder`, where everything is durable, while `works` are done there, one after the other.

    The faults are for the first one, which alone may fail.
    """
    before, known = disk_of(folder)
    calls = []
    for number, work in enumerate(works):
        done = trace(telling(work), [folder, "/memfd:told"], cwd=folder, faults=() if number else faults)
        calls.append(done.calls)
        if done.exit_code and (number or not faults):
            raise AssertionError(f"exit code {done.exit_code}: {done.output}")
    return recording_of(folder, before, known, *calls)


def telling(work: Work, file: int | None = None) -> Work:
    """Return the work as one that tells what it takes for done, in a file of its own or in an open one."""

    def told() -> int | None:
        with _promises(os.memfd_create("told") if file is None else file):
            return work()

    return told


@contextmanager
def _promises(file: int) -> Iterator[None]:
    """Write into a file what is promised when the functions that promise something return."""

    def tell(what: str, path: Path, to: Path | None = None) -> None:
        told = {"what": what, "path": os.path.relpath(path), "to": os.path.relpath(to) if to else ""}
        os.write(file, json.dumps(told).encode())

    def promising(function: Callable[..., Any], what: str, path_of: Callable[..., Path]) -> Callable[..., Any]:
        @wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            tell(what, path_of(result, *arguments))
            return result

        return wrapped

    @contextmanager
    def atomic_write(path: Path) -> Iterator[Any]:
        with originals["atomic_write"](path) as opened:
            yield opened
        tell("durable", path)

    def move(names: Sequence[str], folder: Path, target: Path) -> None:
        for name in names:
            tell("moving", folder / name, target / name)
        originals["move_durably"](names, folder, target)
        for name in names:
            tell("gone", folder / name)
            tell("durable", target / name)

    def complete_move(run: RunDirectory) -> int | None:
        version: int | None = originals["complete_interrupted_move"](run)
        if version is not None:
            tell("gone", run.move_journal)
        return version

    def prune(gone: Sequence[Path], newest: Path) -> list[str]:
        for path in gone:
            tell("released", path)
        complaints: list[str] = originals["prune"](gone, newest)
        for path in () if complaints else gone:
            tell("gone", path)
        return complaints

    telling = {"atomic_write": atomic_write, "move_durably": move, "prune": prune}
    telling |= {"complete_interrupted_move": complete_move}
    originals = {name: getattr(_HOME.get(name, atomic_files), name) for name in (*telling, *_PROMISING)}
    telling |= {name: promising(originals[name], "durable", lambda _, *arguments: arguments[-1]) for name in _PROMISING}
    for name, wrapped in telling.items():
        _replace_everywhere(originals[name], wrapped)
    saves: dict[str, Callable[..., Path]] = {
        "save": lambda path, *_: path,
        "bring_along": lambda path, *_: path,
        "mark_best": lambda _, store, *__: store.run.best_checkpoint,
        "mark_last": lambda _, store, *__: store.run.last_checkpoint,
    }
    for name, path_of in saves.items():
        setattr(CheckpointStore, name, promising(getattr(CheckpointStore, name), "checkpoint", path_of))
    yield  # in a fork that ends afterwards: nothing is put back


def _replace_everywhere(original: object, wrapped: object) -> None:
    """Put `wrapped` in the place of a function in every module that has imported it."""
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()) if hasattr(module, "__dict__") else ():
            if value is original:
                setattr(module, name, wrapped)
