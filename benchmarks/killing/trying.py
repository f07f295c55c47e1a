"""Kills one scenario after the other: what was drawn, what must hold after each death and at the end, what was hit."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from benchmarks.killing.ends import (
    assert_nothing_is_left,
    assert_same_end,
    contents,
    end_processes_in,
    progress,
    saved_when_stopped,
    step_checkpoints,
    torn_pairs,
)
from benchmarks.killing.life import FRESH_START, FRESH_TRAINING, TRAINING_BEGAN, Death, Life, Program
from benchmarks.killing.phases import NAMES, PHASES, STARTING, STEP, Aim
from benchmarks.killing.scenarios import Command, Scenario
from main import main as run_program
from tests.killing import damaged_checkpoints, temporaries

MOST_DEATHS = 16  # of one command; then it is let alone
LONGEST_LIFE = 0.6  # of the undisturbed command, where any instant may be hit
FRESH_START_S = 8.0  # what a life of its own takes longer, about
MOST_KILL_AFTER_S = 0.5
ANY_INSTANT_IN = 6
NEAR = 3  # entries into a phase, within which a life is ended
DEATHS = (Death.KILL, Death.KILL_GROUP) * 5 + (Death.TERM, Death.TERM_GROUP, Death.TERM_THEN_KILL)
COLUMNS = ("runs", "failed", "SIGKILL", "to the group", "SIGTERM", "in a write", "not yet training")
Lasted = dict[str, tuple[int, float]]
_ONCE = {phase.name for phase in PHASES if phase.once}


@dataclass(frozen=True)
class Undisturbed:
    """A scenario that nobody killed: its folder, the seconds of each command, and its phases."""

    folder: Path
    seconds: list[float]
    phases: list[Lasted]


@dataclass
class Kills:
    """Kills scenarios in `root` and counts what the kills hit. `kept_in` gets the files of what failed.

    One life in `one_fresh_in` is `python main.py`, none where that is 0; the others are forks that run `program`. The
    `flag` of `benchmarks.kills` is that of these scenarios.
    """

    root: Path
    corpus: Path
    seed: int
    kept_in: Path | None = None
    one_fresh_in: int = 10
    program: Program = run_program
    honest: Program = run_program
    flag: str = ""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    undisturbed: dict[str, Undisturbed] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """How many SIGKILLs were sent that ended a process."""
        return sum(number for (_, column), number in self.counts.items() if column == "SIGKILL")

    @property
    def compared(self) -> int:
        """How many runs reached their end, and were the undisturbed one's."""
        ended = sum(number for (_, column), number in self.counts.items() if column == "runs")
        return ended - len(self.failures)

    def go_on_until(self, wanted: int, scenarios: list[Scenario], first: int = 0) -> None:
        """Kill that often, whole scenarios in turn."""
        for number in count(first):
            for scenario in scenarios:
                if self.done >= wanted:
                    return
                self.try_out(scenario, number)
            print(self.table(scenarios), flush=True)

    def try_out(self, scenario: Scenario, number: int) -> None:
        """Do a scenario once, with kills."""
        folder = self.root / f"{scenario.name.replace(', ', '_').replace(' ', '_')}_{number}"
        before, began = self.done, time.monotonic()
        if scenario.name not in self.undisturbed:
            self.undisturbed[scenario.name] = self._leave_alone(scenario)
        try:
            self._kill(scenario, folder, random.Random(f"{self.seed} {scenario.name} {number}"))
        except Exception as error:  # noqa: BLE001  (what cannot be read at the end is a failure too, and others follow)
            end_processes_in(folder)
            self.counts[scenario.name, "failed"] += 1
            self._keep(f"{scenario.name}, run {number}: {type(error).__name__}: {error}", folder)
            again = (
                f"python -m benchmarks.kills 1 {self.flag} --seed {self.seed} --only {scenario.name!r} --first {number}"
            )
            print(f"{self.failures[-1]}\n  again: {again}", flush=True)
        self.counts[scenario.name, "runs"] += 1
        seconds = time.monotonic() - began
        print(
            f"{scenario.name}, run {number}: {self.done - before} kills in {seconds:.0f} s, {self.done} in all, "
            f"{len(self.failures)} runs failed",
            flush=True,
        )
        shutil.rmtree(folder, ignore_errors=True)

    def _keep(self, failure: str, folder: Path) -> None:
        kept = ""
        if self.kept_in and folder.exists():
            place = Path(tempfile.mkdtemp(prefix="kills_failed_", dir=self.kept_in)) / folder.name
            shutil.copytree(folder, place, symlinks=True)
            kept = f"\n  files: {place}"
        self.failures.append(f"FAILED {failure}{kept}")

    def _leave_alone(self, scenario: Scenario) -> Undisturbed:
        folder = self.root / f"undisturbed_{len(self.undisturbed)}"
        folder.mkdir()
        seconds, phases = [], []
        for command in scenario.commands:
            before = time.monotonic()
            life = Life(folder, command.at(folder, self.corpus, has_trained=False), program=self.honest)
            life.wait()
            assert life.exit_code == 0, life.said
            seconds.append(time.monotonic() - before)
            phases.append(life.board.lasted())
        assert_nothing_is_left(folder)
        return Undisturbed(folder, seconds, phases)

    def _kill(self, scenario: Scenario, folder: Path, draw: random.Random) -> None:
        folder.mkdir()
        undisturbed, stopped_in = self.undisturbed[scenario.name], set[str]()
        for command, seconds, lasted in zip(scenario.commands, undisturbed.seconds, undisturbed.phases, strict=True):
            stopped_in |= self._kill_command(scenario.name, command, folder, (seconds, lasted), draw)
        assert_nothing_is_left(folder)
        assert_same_end(folder, undisturbed.folder, stopped_in)

    def _kill_command(
        self, name: str, command: Command, folder: Path, undisturbed: tuple[float, Lasted], draw: random.Random
    ) -> set[str]:
        """Start it and end it until it ends by itself; return the step checkpoints that a stop asked for.

        One that is killed right after SIGTERM may have saved, and not come to say so.
        """
        kept = contents(folder) if command.keeps else set()
        reached, strays, stopped_in, has_trained = progress(folder), set[Path](), set[str](), False
        most = draw.randint(2, MOST_DEATHS)
        for left in range(most, -1, -1):
            more = _any_way_to_the_same_bits(draw) if command.trains else ()
            words = (*command.at(folder, self.corpus, has_trained), *more)
            steps = step_checkpoints(folder)
            life = (
                self._one_life(name, folder, words, undisturbed, draw, is_first=left == most)
                if left
                else self._last_life(folder, words)
            )
            began = TRAINING_BEGAN in life.said
            has_trained |= began
            remains = temporaries(folder)
            context = f"{' '.join(words)}\n{life.death.value} in: {life.where}\n{life.said}"
            assert not (began and strays & remains), f"not removed at the next start: {strays & remains}\n{context}"
            assert not (found := damaged_checkpoints(folder)), f"{found}\n{context}"
            assert not (torn := torn_pairs(folder)), f"of two steps: {torn}\n{context}"
            assert not (lost := kept - contents(folder)), f"{len(lost)} checkpoints of before are gone\n{context}"
            now = progress(folder)
            back = {run for run in reached if now.get(run, (-1, -1)) < reached[run]}
            assert not back or command.keeps, f"{[(run, reached[run], now.get(run)) for run in back]}\n{context}"
            stops = saved_when_stopped(life.said)
            assert all((folder / stop).exists() for stop in stops), f"{stops} is not there\n{context}"
            stopped_in |= set(stops)
            if life.death.first_signal is signal.SIGTERM:
                stopped_in |= step_checkpoints(folder) - steps
            reached, strays = now, remains
            if life.exit_code == 0 or _is_there_already(life):
                return stopped_in
            assert life.exit_code in (-signal.SIGKILL, -signal.SIGTERM, 143), f"exit {life.exit_code}\n{context}"
        raise AssertionError(f"exit {life.exit_code}, and nobody killed it\n{context}")

    def _last_life(self, folder: Path, words: tuple[str, ...]) -> Life:
        life = Life(folder, words, program=self.program)
        life.wait()
        return life

    def _one_life(
        self,
        name: str,
        folder: Path,
        words: tuple[str, ...],
        undisturbed: tuple[float, Lasted],
        draw: random.Random,
        *,
        is_first: bool,
    ) -> Life:
        """Start a process, end it in a drawn way at a drawn moment, if it is still there, and return it."""
        seconds, lasted = undisturbed
        aims, death = drawn_aims(lasted, seconds, draw, is_first=is_first), draw.choice(DEATHS)
        is_fresh = bool(self.one_fresh_in) and draw.randrange(self.one_fresh_in) == 0
        first_trains, delay_s = draw.random() < 0.5, draw.random()
        before = temporaries(folder)
        life = Life(folder, words, aims, death, is_fresh, self.program)
        if not is_fresh:
            life.wait_until_it_is_struck()
        elif first_trains:
            life.wait_until_it_trains()
            life.wait(delay_s * LONGEST_LIFE * seconds)
        else:
            life.wait(delay_s * FRESH_START_S)
        if life.exit_code == 0:
            return life
        life.end(kill_after_s=draw.uniform(0, MOST_KILL_AFTER_S))
        if life.exit_code == -signal.SIGKILL:
            self.counts[name, "SIGKILL"] += 1
            self.counts[name, "to the group"] += death.reaches_the_group
            self.phases[life.where] += 1
        else:
            self.counts[name, "SIGTERM"] += life.exit_code != 0
        self.counts[name, "in a write"] += bool(temporaries(folder) - before)
        self.counts[name, "not yet training"] += TRAINING_BEGAN not in life.said
        return life

    def table(self, scenarios: list[Scenario]) -> str:
        """Return a row for each scenario, and one for each phase in which a process was killed."""
        rows = [(s.name, [self.counts[s.name, column] for column in COLUMNS]) for s in scenarios]
        rows.append(("all", [sum(figures) for figures in zip(*(row for _, row in rows), strict=True)]))
        lines = [f"{'':28}" + "".join(f"{column:>17}" for column in COLUMNS)]
        lines += [f"{name:28}" + "".join(f"{figure:17}" for figure in figures) for name, figures in rows]
        lines += ["", "SIGKILL fell in"]
        lines += [f"  {name:28}{self.phases[name]:6}" for name in (*NAMES, FRESH_START, FRESH_TRAINING)]
        return "\n".join(lines)


def drawn_aims(lasted: Lasted, seconds: float, draw: random.Random, *, is_first: bool) -> tuple[Aim, ...]:
    """Draw a moment: one since the start, or one in any of the phases that the undisturbed command went through.

    A phase that only the first start has may not come again: every other first life is ended in one, and where a later
    one waits for it in vain, a moment in a later step ends that life instead.
    """
    if not lasted or draw.randrange(ANY_INSTANT_IN) == 0:
        return (Aim(STARTING.name, 1, draw.uniform(0, LONGEST_LIFE * seconds)),)
    of_first_start = sorted(_ONCE & lasted.keys()) if is_first and draw.random() < 0.5 else []
    phase = draw.choice(of_first_start or sorted(lasted))
    number, seconds_each = lasted[phase]
    aim = Aim(phase, draw.randint(1, min(number, NEAR)), draw.uniform(0, seconds_each))
    return (aim, Aim(STEP.name, draw.randint(1, NEAR), 0.0)) if phase in _ONCE else (aim,)


def _any_way_to_the_same_bits(draw: random.Random) -> tuple[str, ...]:
    """Draw settings that a run may be continued with: who reads the audio, and who writes the checkpoints."""
    return ("--num_workers", str(draw.randrange(3)), draw.choice(("--sync_save", "--no-sync_save", "--no-sync_save")))


def _is_there_already(life: Life) -> bool:
    """Whether the life before was killed between the name of its export and its end."""
    return life.exit_code == 1 and "exists already: pass another name" in life.said
