"""Kills real trainings, evaluations and exports at random instants; they must end like undisturbed ones.

    python -m benchmarks.kills [KILLS] [--seed N] [--only SCENARIO ...] [--first N]

Each scenario (benchmarks/killing/scenarios.py) is a few commands in one folder, which together use every feature that
writes. Each command is started, ended by SIGKILL or SIGTERM, sent to it alone or to its process group, and repeated as
the documents say, until it ends by itself. The instants are drawn by seed: any since the start; any since training
began; while a file is being written or just after. One life in ten is `python main.py`, the others are forks of this
process. After each death no checkpoint may be damaged and no progress gone; what SIGTERM saved must be there. After
the last command its files, curves and scores must be those of the undisturbed run, bit for bit, and no temporary,
journal, held lock or process may be left. KILLS counts SIGKILLs. What fails is kept and printed with the command that
draws the same instants again (which the machine meets at other instructions: repeat it some times).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from pathlib import Path

from benchmarks.killing.ends import (
    assert_nothing_is_left,
    assert_same_end,
    contents,
    drop_never_saved,
    end_processes_in,
    never_saved,
    progress,
    saved_when_stopped,
)
from benchmarks.killing.life import TRAINING_BEGAN, Death, Life
from benchmarks.killing.scenarios import SCENARIOS, Command, Scenario
from benchmarks.measuring import machine_text
from tests.conftest import write_corpus
from tests.killing import POLL_S, damaged_checkpoints, temporaries

SEED = 20261126
IMPORTED_ONCE = ("training.loop.session", "training.evaluation.subject", "matplotlib.figure", "wandb")
ONE_FRESH_IN = 10
MOST_DEATHS = 8  # of one command; then it is let alone
LONGEST_LIFE = 0.6  # of the undisturbed command
JUST_AFTER_S = 0.05
DEATHS = (Death.KILL, Death.KILL_GROUP) * 4 + (Death.TERM, Death.TERM_GROUP, Death.TERM_THEN_KILL)
ANY_INSTANT, IN_TRAINING, IN_A_WRITE = "any instant", "since training began", "aimed at writes"
AIMS = (ANY_INSTANT, IN_TRAINING, IN_A_WRITE, IN_A_WRITE)
COLUMNS = ("runs", "failed", "SIGKILL", "to the group", "SIGTERM", "in a write", "not yet training", "empty versions")


@dataclass
class Undisturbed:
    """A scenario that nobody killed: its folder, and how long each command took in seconds."""

    folder: Path
    seconds: list[float]


@dataclass
class Kills:
    """Kills one scenario after the other and counts what the kills hit."""

    root: Path
    corpus: Path
    seed: int
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    undisturbed: dict[str, Undisturbed] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """How many SIGKILLs were sent that ended a process."""
        return sum(number for (_, column), number in self.counts.items() if column == "SIGKILL")

    @property
    def ended(self) -> int:
        """How many runs reached their end, and were compared."""
        return sum(number for (_, column), number in self.counts.items() if column == "runs")

    def go_on_until(self, wanted: int, scenarios: list[Scenario], first: int) -> None:
        """Kill that often, whole scenarios in turn."""
        for number in count(first):
            for scenario in scenarios:
                if self.done >= wanted:
                    return
                self._try(scenario, number)

    def _try(self, scenario: Scenario, number: int) -> None:
        folder = self.root / f"{scenario.name.replace(', ', '_').replace(' ', '_')}_{number}"
        before = self.done
        try:
            if scenario.name not in self.undisturbed:
                self.undisturbed[scenario.name] = self._leave_alone(scenario)
            self._kill(scenario, folder, random.Random(f"{self.seed} {scenario.name} {number}"))
        except AssertionError as error:
            self.counts[scenario.name, "failed"] += 1
            kept = Path(tempfile.mkdtemp(prefix="kills_failed_", dir=self.root.parent)) / folder.name
            end_processes_in(folder)
            if folder.exists():
                shutil.copytree(folder, kept, symlinks=True)
            self.failures.append(
                f"FAILED {scenario.name}, run {number}: {error}\n  files: {kept}\n  again: "
                f"python -m benchmarks.kills 1 --seed {self.seed} --only {scenario.name!r} --first {number}"
            )
            print(self.failures[-1], flush=True)
        self.counts[scenario.name, "runs"] += 1
        print(f"{scenario.name}, run {number}: {self.done - before} kills, {self.done} in all", flush=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _leave_alone(self, scenario: Scenario) -> Undisturbed:
        folder = self.root / f"undisturbed_{len(self.undisturbed)}"
        folder.mkdir()
        seconds = []
        for command in scenario.commands:
            before = time.monotonic()
            life = Life(folder, command.at(folder, self.corpus, has_trained=False))
            life.wait()
            assert life.exit_code == 0, life.said
            seconds.append(time.monotonic() - before)
        assert_nothing_is_left(folder)
        return Undisturbed(folder, seconds)

    def _kill(self, scenario: Scenario, folder: Path, draw: random.Random) -> None:
        folder.mkdir()
        undisturbed, stopped_in = self.undisturbed[scenario.name], set[str]()
        for command, seconds in zip(scenario.commands, undisturbed.seconds, strict=True):
            stopped_in |= self._kill_command(scenario.name, command, folder, seconds, draw)
        self.counts[scenario.name, "empty versions"] += len(never_saved(folder))
        assert_nothing_is_left(folder)
        drop_never_saved(folder)
        assert_same_end(folder, undisturbed.folder, stopped_in)

    def _kill_command(self, name: str, command: Command, folder: Path, seconds: float, draw: random.Random) -> set[str]:
        """Start it and end it until it ends by itself; return the checkpoints that it named when it was stopped."""
        kept = contents(folder) if command.keeps else set()
        reached, strays, stopped_in, has_trained = progress(folder), set[Path](), set[str](), False
        for left in range(draw.randint(1, MOST_DEATHS), -1, -1):
            more = _any_way_to_the_same_bits(draw) if command.trains else ()
            words = (*command.at(folder, self.corpus, has_trained), *more)
            life = Life(folder, words, is_fresh=draw.randrange(ONE_FRESH_IN) == 0)
            if left:
                self._end(name, life, draw, seconds)
            else:
                life.wait()
            began = TRAINING_BEGAN in life.said
            has_trained |= began
            remains = temporaries(folder)
            context = f"{' '.join(words)}\n{life.said}"
            assert not (began and strays & remains), f"not removed at the next start: {strays & remains}\n{context}"
            assert not (found := damaged_checkpoints(folder)), f"{found}\n{context}"
            assert not (lost := kept - contents(folder)), f"{len(lost)} checkpoints of before are gone\n{context}"
            now = progress(folder)
            back = {run for run in reached if now.get(run, (-1, -1)) < reached[run]}
            assert not back or command.keeps, f"{[(run, reached[run], now.get(run)) for run in back]}\n{context}"
            stops = saved_when_stopped(life.said)
            assert all((folder / stop).exists() for stop in stops), f"{stops} is not there\n{context}"
            stopped_in |= set(stops)
            reached, strays = now, remains
            if life.exit_code == 0 or _is_there_already(life):
                return stopped_in
            assert life.exit_code in (-signal.SIGKILL, -signal.SIGTERM, 143), f"exit {life.exit_code}\n{context}"
        raise AssertionError(f"exit {life.exit_code}, and nobody killed it\n{context}")

    def _end(self, name: str, life: Life, draw: random.Random, seconds: float) -> None:
        """Wait for a drawn instant and end the process in a drawn way, if it is still there."""
        aim, death = draw.choice(AIMS), draw.choice(DEATHS)
        before = temporaries(life.folder)
        if aim == IN_TRAINING:
            life.wait_until_it_trains()
        life.wait(draw.uniform(0, LONGEST_LIFE * seconds))
        if aim == IN_A_WRITE:
            _wait_for_a_write(life)
            life.wait(draw.choice((0.0, draw.uniform(0, JUST_AFTER_S))))
        if not life.is_running:
            return
        life.end(death)
        is_kill = life.exit_code == -signal.SIGKILL
        self.counts[name, "SIGKILL" if is_kill else "SIGTERM"] += 1
        self.counts[name, "to the group"] += is_kill and death.reaches_the_group
        self.counts[name, "in a write"] += bool(temporaries(life.folder) - before)
        self.counts[name, "not yet training"] += TRAINING_BEGAN not in life.said

    def table(self) -> str:
        """Return a row for each scenario."""
        rows = [(s.name, [self.counts[s.name, column] for column in COLUMNS]) for s in SCENARIOS]
        rows.append(("all", [sum(figures) for figures in zip(*(row for _, row in rows), strict=True)]))
        return "\n".join(
            [f"{'':26}" + "".join(f"{column:>17}" for column in COLUMNS)]
            + [f"{name:26}" + "".join(f"{figure:17}" for figure in figures) for name, figures in rows]
        )


def _any_way_to_the_same_bits(draw: random.Random) -> tuple[str, ...]:
    """Draw settings that a run may be continued with: who reads the audio, and who writes the checkpoints."""
    return ("--num_workers", str(draw.randrange(3)), draw.choice(("--sync_save", "--no-sync_save", "--no-sync_save")))


def _wait_for_a_write(life: Life) -> None:
    """Return as soon as any file is being written, or nobody is running any more."""
    before = temporaries(life.folder)
    while life.is_running and not temporaries(life.folder) - before:
        time.sleep(POLL_S)


def _is_there_already(life: Life) -> bool:
    """Whether the life before was killed between the name of its export and its end."""
    return life.exit_code == 1 and "exists already: pass another name" in life.said


def main() -> int:
    """Kill that often, print what was hit and what failed, and return 1 if anything did."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills")
    parser.add_argument("kills", nargs="?", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", nargs="+", metavar="SCENARIO", default=[s.name for s in SCENARIOS])
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    print(machine_text(), flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in IMPORTED_ONCE:
        with suppress(ImportError):
            import_module(name)
    before = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        tempfile.tempdir = os.environ["TMPDIR"] = str(Path(place) / "temporary")  # where W&B leaves what was killed
        Path(tempfile.tempdir).mkdir()
        corpus = write_corpus(Path(place) / "corpus")
        protocols = corpus / "ASVspoof2019_LA_cm_protocols"
        shutil.copytree(corpus / "ASVspoof2019_LA_dev", corpus / "ASVspoof2019_LA_eval")
        shutil.copy(protocols / "ASVspoof2019.LA.cm.dev.trl.txt", protocols / "ASVspoof2019.LA.cm.eval.trl.txt")
        kills = Kills(Path(place), corpus, asked.seed)
        chosen = [scenario for scenario in SCENARIOS if scenario.name in asked.only]
        try:
            kills.go_on_until(asked.kills, chosen, asked.first)
        except KeyboardInterrupt:
            print("Stopped; so far:")
        end_processes_in(Path(place))
    print(kills.table())
    outcome = (
        f"{len(kills.failures)} runs failed"
        if kills.failures
        else f"all {kills.ended} runs that ended: nothing left, same bits"
    )
    print(f"{kills.done} kills in {time.monotonic() - before:.0f} s: {outcome}")
    print(*kills.failures, sep="\n")
    return bool(kills.failures)


if __name__ == "__main__":
    sys.exit(main())
