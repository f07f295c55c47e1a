"""Tries what power cuts may leave of trainings, at every system call: 100,000 states, and mutants of the short ones.

    python -m benchmarks.crash_states [PROCESSES [GROUP]]

GROUP, 1 to 3, does one part only.

The trainings are of the task of two networks, by the real program, recorded below Python (`tests/system_calls/`). The
legal states are those of `tests/crash_states/model.py`; two states between which the program sees no difference, times
and random names aside, count once over all trainings. Judged are the promises made until then (every checkpoint that
was said to be saved, every file that was said to be durable) and what `--auto_resume` would do. Of some, it is carried
out, and must end with the bits of the undisturbed run and no leftovers.

1. the scenarios of the tests, on all three models, with every mutant: a sync, rename or link left out, or done later
2. a training that is killed at each of its calls and goes on, and then the power is cut
3. long trainings with many kinds of retention, names and saving
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.measuring import machine_text
from tests.conftest import write_corpus
from tests.crash_states.model import Model
from tests.crash_states.mutants import Original, mutants_of
from tests.crash_states.promises import Labels
from tests.crash_states.scenarios import SCENARIOS, Scenario, killed_at, training, warm_up
from tests.crash_states.trying import Tried, own_folder, try_states, went_on
from tests.system_calls.recorder import Fault, why_not_here

LONG_EPOCHS = 24
_KINDS = ("mkdir", "open", "fsync", "link", "rename", "unlink")
_RETENTION = (
    ("--keep_last_n", "1"),
    ("--keep_last_n", "2", "--milestones", "3,9"),
    ("--keep_last_n", "3"),
    ("--save_best_only",),
    ("--save_freq", "3", "--keep_last_n", "1"),
)
_STEPS: tuple[tuple[str, ...], ...] = (
    (),
    ("--save_interval", "1"),
    ("--save_interval", "2"),
    ("--save_interval", "2", "--val_interval", "2", "--checkpoint_name", "at_{step:05d}.pt"),
)
_OTHER: tuple[tuple[str, ...], ...] = ((), ("--sync_save",), ("--compress_after", "1", "--comment", "x"))


@dataclass(frozen=True)
class Task:
    """One training to record and try: every `one_in`-th new state is gone on from, if that is not 0."""

    group: str
    name: str
    scenario: Scenario
    one_in: int
    models: tuple[Model, ...] = (Model.UNJOURNALLED,)
    with_mutants: bool = False


@dataclass
class Done:
    """What came of one or more tasks; `cpu_seconds` counts forks too."""

    tried: Tried = field(default_factory=Tried)
    trainings: int = 0
    went_on: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = 0.0

    def add(self, other: Done) -> None:
        """Take in what came of others."""
        self.tried.seen |= other.tried.seen
        self.tried.bad += other.tried.bad
        self.tried.counts.legal += other.tried.counts.legal
        self.tried.counts.tried += other.tried.counts.tried
        self.trainings += other.trainings
        self.went_on += other.went_on
        self.fates += other.fates
        self.cpu_seconds += other.cpu_seconds


_corpus = Path()


def _begin(corpus: Path) -> None:
    global _corpus  # noqa: PLW0603 (of this worker process)
    _corpus = corpus
    torch.set_num_threads(1)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (the plan of what it trains first)
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder), corpus)


def _do(task: Task) -> Done:
    before, done = _cpu_seconds(), Done(trainings=1)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as top:
        folder = Path(top, "run")
        folder.mkdir()
        recording = task.scenario.recorded(folder, _corpus)
        done.tried = try_states(
            recording,
            task.scenario,
            _corpus,
            Path(top, "scratch"),
            task.models,
            keep=lambda number: bool(task.one_in) and number % task.one_in == task.one_in // 2,
        )
        for state in done.tried.sample:
            wrong = went_on(state, task.scenario, _corpus, folder, own_folder(recording), Path(top, "again"))
            done.went_on += 1
            done.tried.bad += [f"gone on with after step {state.number}: {text}" for text in wrong]
        if task.with_mutants:
            original = Original(recording, Labels(Path(top, "labels", "file.pth")))
            fates = [(mutant, original.fate_of(mutant)) for mutant in mutants_of(recording)]
            done.fates = Counter(fate.value for _, fate in fates)
            done.tried.bad += [f"mutant survived: {mutant.what}" for mutant, fate in fates if fate.value == "survived"]
    done.tried.sample = []
    done.tried.bad = [f"{task.name}: {text}" for text in done.tried.bad]
    done.cpu_seconds = _cpu_seconds() - before
    return done


def _cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _tasks(corpus: Path) -> Iterator[Task]:
    for name, scenario in SCENARIOS.items():
        yield Task("1, scenarios of the tests", name, scenario, 12, tuple(Model), with_mutants=True)
    for number, choice in enumerate(itertools.product(_RETENTION, _STEPS, _OTHER)):
        together = tuple(itertools.chain.from_iterable(choice))
        scenario = training(LONG_EPOCHS, *together, "--seed", str(number))
        yield Task(f"3, long trainings of {LONG_EPOCHS} epochs", " ".join(together), scenario, 1000)
    flags = ("--keep_last_n", "1", "--save_interval", "2")
    with tempfile.TemporaryDirectory() as folder:
        calls = training(2, *flags).calls(Path(folder), corpus)
    counts = Counter(call.kind for call in calls if call.kind in _KINDS)
    for kind, count in counts.items():
        for occurrence in range(1, count + 1):
            fault = Fault(kind, occurrence=occurrence, kill=True)
            yield Task("2, killed, gone on with", f"killed at {kind} {occurrence}", killed_at(fault, 2, *flags), 150)


def main() -> None:
    """Do it all and print what came of it."""
    if reason := why_not_here():
        sys.exit(reason)
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    began, groups, total = time.monotonic(), dict[str, Done](), Done()
    print(machine_text())
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder, "corpus"), train=12, dev=4)
        tasks = [task for task in _tasks(corpus) if task.group.startswith(tuple(sys.argv[2:3]) or "")]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _begin, (corpus,)) as pool:
            waiting = {pool.submit(_do, task): task for task in tasks}
            for number, future in enumerate(as_completed(waiting), 1):
                done = future.result()
                groups.setdefault(waiting[future].group, Done()).add(done)
                total.add(done)
                for text in done.tried.bad:
                    print(f"BAD: {text}", flush=True)
                if number % 20 == 0:
                    so_far = f"{number} of {len(tasks)} trainings, {len(total.tried.seen):,} different states"
                    print(f"{so_far}, {time.monotonic() - began:.0f} s", flush=True)
    for name, done in {**groups, "together": total}.items():
        counts = done.tried.counts
        print(
            f"{name}: {done.trainings} trainings; {counts.tried:,} of {counts.legal:,} legal choices tried, "
            f"{len(done.tried.seen):,} different to the program, {len(done.tried.bad)} bad; "
            f"{done.went_on} gone on with; {done.cpu_seconds:.0f} s of processor time"
        )
    print(f"mutants: {dict(total.fates)}")
    print(f"{time.monotonic() - began:.0f} s with {processes} processes")
    sys.exit(1 if total.tried.bad else 0)


if __name__ == "__main__":
    main()
