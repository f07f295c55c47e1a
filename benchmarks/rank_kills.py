"""Kills, stops and hangs single processes of runs by several; they must end with the bits of one process left alone.

    python -m benchmarks.rank_kills [SCHEDULES] [--seed N] [--first N] [--only NAME ...]

A schedule is one run: it is started by 1, 2 or 4 processes (gloo, forks of this one), one of which, or all, is met by
SIGKILL, SIGTERM, SIGINT or, rarely, SIGSTOP at an instant drawn by seed: any since training began, or within a write
of a checkpoint. The same command goes on by another number of processes, up to some deaths, then to its end. After each
death no process may be left, no checkpoint damaged, no progress gone. At the end every file, curve and score must be
that of the run that one process trained undisturbed, each point once; and the log of what each step was trained on must
have every utterance of every epoch once. What fails is kept, and printed with the command that draws it again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.killing.ends import (
    assert_nothing_is_left,
    assert_same_end,
    end_processes_in,
    progress,
    saved_when_stopped,
)
from benchmarks.measuring import machine_text
from tests.conftest import write_corpus
from tests.killing import damaged_checkpoints, wait_for_a_write
from tests.launched import Several, training
from training.loop.step import take_step

SEED = 20261126
BATCHES_A_STEP, BATCH_SIZE, NUM_TRAIN, NUM_EPOCHS = 4, 2, 44, 2  # 22 batches: the last step of an epoch has 2
NUMBERS = (1, 2, 4)
MOST_DEATHS = 4
TRAINING_BEGAN = "Training "
RARELY = 12
STOPS_WITHIN_S = 60.0  # 30 promised, on a machine that does other things too
RUNS = {
    "g3_heatmap": ("--ssl_model", "compact", "--use_contrastive", "--algo", "3"),
    "g3_heatmap, bf16": ("--ssl_model", "compact", "--use_contrastive", "--precision", "bf16"),
    "lcnn": ("--clip_grad_norm", "1.0"),
    "lcnn, swa": ("--swa", "--crop", "random", "--val_interval", "4"),
}
_GOES_ON_FROM = re.compile(r"goes on from (\S+\.pth)")


@dataclass
class Schedules:
    """Runs one schedule after the other, and counts what befell whom."""

    root: Path
    corpus: Path
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    undisturbed: dict[str, tuple[Path, float]] = field(default_factory=dict)

    def run(self, name: str, number: int) -> None:
        """Run one schedule, and keep what failed."""
        folder = self.root / f"{re.sub(r'[ ,]+', '_', name)}_{number}"
        try:
            if name not in self.undisturbed:
                self.undisturbed[name] = self._leave_alone(name)
            self._disturb(name, folder, random.Random(f"{self.seed} {name} {number}"))
        except AssertionError as error:
            kept = Path(tempfile.mkdtemp(prefix="rank_kills_failed_", dir=self.root.parent)) / folder.name
            end_processes_in(folder)
            if folder.exists():
                shutil.copytree(folder, kept, symlinks=True)
            self.failures.append(
                f"FAILED {name}, schedule {number}: {error}\n  files: {kept}\n  again: "
                f"python -m benchmarks.rank_kills 1 --seed {self.seed} --first {number} --only {name!r}"
            )
            print(self.failures[-1], flush=True)
        self.counts["schedules"] += 1
        shutil.rmtree(folder, ignore_errors=True)

    def _command(self, name: str) -> list[str | Path]:
        sizes = {"batch_size": BATCH_SIZE, "accumulate_steps": BATCHES_A_STEP, "num_epochs": NUM_EPOCHS}
        model, *_ = name.split(",")
        return [
            "--database_path",
            self.corpus,
            *("--model_type", model, *RUNS[name], "--lr", "1e-3", "--device", "cpu"),
            *(word for flag, value in sizes.items() for word in (f"--{flag}", str(value))),
            *(
                "--save_interval",
                "2",
                "--keep_last_n",
                "99",
                "--num_workers",
                "0",
                "--auto_resume",
                "--comment",
                "ranks",
            ),
        ]

    def _leave_alone(self, name: str) -> tuple[Path, float]:
        folder = self.root / f"undisturbed_{len(self.undisturbed)}"
        began = time.monotonic()
        lives = training(folder, self._command(name), 1, {0: _logging(folder, 0, 0)})
        assert lives.codes() == [0], lives.all_said()
        assert_every_utterance_once(folder, 1)
        return folder, time.monotonic() - began

    def _disturb(self, name: str, folder: Path, draw: random.Random) -> None:
        undisturbed, seconds = self.undisturbed[name]
        stopped_in: set[str] = set()
        reached: dict[Path, tuple[int, int]] = {}
        for life, left in enumerate(range(draw.randint(1, MOST_DEATHS), -1, -1)):
            number = draw.choice(NUMBERS)
            logs = {index: _logging(folder, life, index) for index in range(number)}
            lives = training(folder, self._command(name), number, logs)
            what = self._end_one(lives, draw, seconds) if left else "left alone"
            codes = lives.codes()
            self.counts["lives"] += 1
            told = f"life {life}, {number} processes, {what}: exit codes {codes}\n{lives.all_said()}"
            assert None not in codes, f"not at its end: {told}"
            said = lives.all_said()
            assert "Traceback" not in said, told
            assert said.count("error: ") <= 1, f"more than one sentence: {told}"
            assert not (found := damaged_checkpoints(folder)), f"{found}: {told}"
            now = progress(folder)
            back = {run for run in reached if now.get(run, (-1, -1)) < reached[run]}
            assert not back, f"went back from {reached} to {now}: {told}"
            reached = now
            stopped_in |= {*saved_when_stopped(said), *_GOES_ON_FROM.findall(said)}
            if set(codes) == {0}:
                break
            assert left, f"ended, and nobody did anything: {told}"
        assert_nothing_is_left(folder)
        assert_every_utterance_once(folder, life + 1)
        assert_same_end(folder, undisturbed, stopped_in)

    def _end_one(self, lives: Several, draw: random.Random, seconds: float) -> str:
        """Wait for a drawn instant and let something befall one of them, or all; return what it was."""
        in_a_write, to_all = draw.random() < 0.4, draw.random() < 0.2
        number = draw.choice([signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT])
        if lives.count > 1 and draw.randrange(RARELY) == 0:
            number, to_all = signal.SIGSTOP, False
        first = draw.randrange(lives.count)
        instant = draw.uniform(0, 0.5 * seconds)
        while lives.is_running(0) and TRAINING_BEGAN not in lives.said(0):
            time.sleep(0.01)
        until = time.monotonic() + instant
        while lives.is_running(0) and time.monotonic() < until:
            time.sleep(0.01)
        if in_a_write:
            wait_for_a_write(lambda: lives.is_running(0), lives.folder)
        victims = range(lives.count) if to_all else (first,)
        if not any(lives.is_running(index) for index in victims):
            return "nothing, too late"
        for index in victims:
            lives.send(index, number)
        what = f"{number.name} to {'all' if to_all else f'process {first}'}{' in a write' if in_a_write else ''}"
        self.counts[f"{number.name}{' to all' if to_all else ' to one'}"] += 1
        self.counts["in a write"] += in_a_write
        others = [index for index in range(lives.count) if index not in victims]
        began = time.monotonic()
        while any(lives.is_running(index) for index in others):
            assert time.monotonic() - began < STOPS_WITHIN_S, f"{what}: {others} still there\n{lives.all_said()}"
            time.sleep(0.01)
        if number is signal.SIGSTOP and lives.is_running(first):  # else the one that took over has ended it
            lives.send(first, signal.SIGKILL)
        return what


def _logging(folder: Path, life: int, index: int) -> Callable[[], None]:
    """Return what has a process write down which utterances it trained on in each step that it completed."""

    def arrange() -> None:
        from training.loop import trainer  # noqa: PLC0415

        def logged(state: Any, task: Any, given: Any, *more: Any, **named: Any) -> Any:
            result = take_step(state, task, given, *more, **named)
            batches = [batch.indices.tolist() for _, batch in given.numbered()]
            line = json.dumps({"epoch": state.epoch + 1, "step": state.step, "first": given.first, "batches": batches})
            with (folder.parent / f"{folder.name}.log.{life}.{index}").open("a") as file:
                file.write(line + "\n")
            return result

        trainer.take_step = logged  # type: ignore[attr-defined]

    return arrange


def assert_every_utterance_once(folder: Path, num_lives: int) -> None:
    """Raise AssertionError where an epoch lacks an utterance or has one twice, by the last life that trained a step.

    A step that no checkpoint had when all processes died is trained again: what counts is the last life that did.
    """
    trained: dict[int, dict[int, list[int]]] = {}  # of each step its batches, by their number
    epochs: dict[int, int] = {}
    for life in range(num_lives):
        of_life: dict[int, dict[int, list[int]]] = {}
        for path in folder.parent.glob(f"{folder.name}.log.{life}.*"):
            for line in path.read_text().splitlines():
                told = json.loads(line)
                epochs[told["step"]] = told["epoch"]
                for number, batch in enumerate(told["batches"], start=told["first"]):
                    batches = of_life.setdefault(told["step"], {})
                    assert number not in batches, f"step {told['step']}: batch {number} twice"
                    batches[number] = batch
        trained |= of_life
    for epoch in range(1, NUM_EPOCHS + 1):
        steps = [step for step in trained if epochs[step] == epoch]
        seen = Counter(index for step in steps for batch in trained[step].values() for index in batch)
        assert seen == Counter(range(NUM_TRAIN)), f"epoch {epoch}: {seen}"


def main() -> int:
    """Run the schedules, print what befell them and what failed, and return 1 if anything did."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rank_kills")
    parser.add_argument("schedules", nargs="?", type=int, default=50)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="NAME", default=list(RUNS))
    asked = parser.parse_args()
    print(machine_text(), flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    before = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        schedules = Schedules(Path(place), write_corpus(Path(place) / "corpus", train=NUM_TRAIN), asked.seed)
        try:
            for number in count(asked.first):
                for name in asked.only:
                    if schedules.counts["schedules"] < asked.schedules:
                        schedules.run(name, number)
                        told = f"{schedules.counts['lives']} lives, {len(schedules.failures)} failed"
                        print(f"{name}, schedule {number}: {told}, {time.monotonic() - before:.0f} s", flush=True)
                if schedules.counts["schedules"] >= asked.schedules:
                    break
        except KeyboardInterrupt:
            print("Stopped; so far:")
        end_processes_in(Path(place))
    print("\n".join(f"{what:20}{number:6}" for what, number in sorted(schedules.counts.items())))
    print(f"{len(schedules.failures)} of {schedules.counts['schedules']} schedules failed")
    print(*schedules.failures, sep="\n")
    return bool(schedules.failures)


if __name__ == "__main__":
    sys.exit(main())
