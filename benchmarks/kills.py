"""Kills a real training at random instants, hundreds of times, and compares what it ends with to an undisturbed run.

    python -m benchmarks.kills [KILLS] [CORPUS]

Trains the compact detector on a corpus of tones (on CORPUS, in ASVspoof 2019 LA layout, if given), saving after every
step, and sends SIGKILL: at any instant since the start; at any since training began; while a checkpoint is being
written; and, one in ten, to a process started with `python main.py`. The others are forked from this process, which has
imported all that training needs: a start takes a tenth of a second instead of five, and the process and its death are
as real. Every other kill takes the processes that read audio along. After each kill no file under a checkpoint's name
may be damaged and none of the progress on disk may be gone; where training began again, the temporaries of the kill
before must be gone. Runs that reach their last epoch must have the files of the undisturbed run, bit for bit; then the
next one begins.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measuring import PROGRAM, machine_text, run_once
from main import main as train
from tests.comparing import bits, differences, log_rows
from tests.conftest import write_corpus
from tests.killing import checkpoint_temporaries, damaged_checkpoints, temporaries, wait_for_a_write
from training.loop import session  # noqa: F401  (imported once, for all that are forked)
from training.runs.survey import survey_folder

SEED = 20261124
SETTINGS = ("--ssl_model", "compact", "--batch_size", "4", "--lr", "1e-3", "--auto_resume")
SAVING = ("--save_interval", "1", "--keep_last_n", "3")
EPOCHS = 12
ONE_FRESH_IN = 10
LONGEST_LIFE = 0.4  # of an undisturbed run
_TRAINING_BEGAN = "Training "
_REACHED = "Target epochs already reached"
ANY_INSTANT, IN_TRAINING, IN_A_WRITE = "any instant", "any since training began", "aimed at writes"
FRESH = "any instant, python main.py"
AIMS = (ANY_INSTANT, IN_A_WRITE, IN_TRAINING, IN_A_WRITE)  # in turn


@dataclass
class Life:
    """One process that trains in `folder`, from its start to its end."""

    folder: Path
    arguments: tuple[str, ...]
    is_fresh: bool

    def __post_init__(self) -> None:
        self._said = self.folder / "said.txt"
        self._said.unlink(missing_ok=True)  # what the life before said
        target = _exec if self.is_fresh else _train
        self._process = multiprocessing.get_context("fork").Process(
            target=target, args=(self.folder, self._said, self.arguments)
        )
        self._process.start()

    @property
    def is_running(self) -> bool:
        """Whether it is neither killed nor done."""
        return self._process.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for its end, or some seconds.

        Not by `join`, which waits for the end of a pipe: exec closes it, and the readers of a killed process hold it.
        """
        end_s = time.monotonic() + seconds if seconds is not None else math.inf
        while self.is_running and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(0.01, left_s))

    def wait_until_it_trains(self) -> None:
        """Wait for the line that says so, or its end."""
        while self.is_running and _TRAINING_BEGAN not in self.said:
            time.sleep(0.01)

    def kill(self, with_children: bool) -> None:
        """Send SIGKILL and return when it is dead."""
        assert self._process.pid is not None
        try:
            (os.killpg if with_children else os.kill)(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # killed before it had a process group of its own
            self._process.kill()
        self._process.join()

    @property
    def exit_code(self) -> int | None:
        """As of multiprocessing: -9 after SIGKILL."""
        return self._process.exitcode

    @property
    def said(self) -> str:
        """Everything it printed."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""


def _train(folder: Path, said: Path, arguments: tuple[str, ...]) -> None:
    _settle(folder, said)
    sys.exit(train(arguments))


def _exec(folder: Path, said: Path, arguments: tuple[str, ...]) -> None:
    _settle(folder, said)
    os.execv(PROGRAM[0], (*PROGRAM, *arguments))


def _settle(folder: Path, said: Path) -> None:
    """Become a process like one started by a shell in `folder`, its output in a file."""
    os.setsid()
    os.chdir(folder)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


@dataclass
class Kills:
    """Kills one run after the other and counts what the kills hit; raises AssertionError where anything is lost."""

    root: Path
    arguments: tuple[str, ...]
    undisturbed: Path
    longest_forked_s: float
    longest_fresh_s: float
    draw: random.Random
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    runs: int = 0
    done: int = 0

    def go_on_until(self, wanted: int) -> None:
        """Kill that often, and let the last run end."""
        while self.done < wanted:
            self._kill_one_run(wanted)
            self.runs += 1
            print(f"{self.done} kills, {self.runs} runs ended with the bits of the undisturbed one", flush=True)

    def _kill_one_run(self, wanted: int) -> None:
        folder = self.root / f"run_{self.runs}"
        folder.mkdir()
        progress, strays = (-1, -1), set[Path]()
        while True:
            is_fresh = self.done % ONE_FRESH_IN == 0
            life = Life(folder, self.arguments, is_fresh)
            aim = FRESH if is_fresh else AIMS[self.done % len(AIMS)]
            if self.done < wanted:
                if aim == IN_TRAINING:
                    life.wait_until_it_trains()
                life.wait(self.draw.uniform(0, self.longest_fresh_s if is_fresh else self.longest_forked_s))
                if aim == IN_A_WRITE:
                    wait_for_a_write(lambda: life.is_running, folder)  # noqa: B023  (called before the next one)
            else:
                life.wait()
            if life.is_running:
                life.kill(with_children=self.done % 4 < 2)
            else:
                life.wait()
            began = _TRAINING_BEGAN in life.said
            left = temporaries(folder)
            assert not (began and strays & left), f"not removed at the next start: {strays & left}"
            assert not damaged_checkpoints(folder), damaged_checkpoints(folder)
            assert _progress(folder) >= progress, f"{_progress(folder)} is left of {progress}:\n{life.said}"
            progress = _progress(folder)
            if life.exit_code != -signal.SIGKILL:
                assert life.exit_code == 0, life.said
                break
            self.done += 1
            self._count(aim, began, bool(checkpoint_temporaries(folder) - strays))
            strays = left
        assert not temporaries(folder), f"{temporaries(folder)} are left:\n{life.said}"
        _assert_same_files(_run_folder(folder), self.undisturbed, life.said)

    def _count(self, aim: str, began: bool, in_a_write: bool) -> None:
        self.counts[aim, "kills"] += 1
        self.counts[aim, "before training"] += not began
        self.counts[aim, "in a write"] += in_a_write

    def table(self) -> str:
        """Return a row for each way to choose the instant."""
        columns = ("kills", "before training", "in a write")
        rows = [(aim, [self.counts[aim, column] for column in columns]) for aim in (*dict.fromkeys(AIMS), FRESH)]
        rows.append(("all", [sum(figures) for figures in zip(*(row for _, row in rows), strict=True)]))
        return "\n".join(
            [f"{'':28}" + "".join(f"{column:>17}" for column in columns)]
            + [f"{aim:28}" + "".join(f"{figure:17}" for figure in figures) for aim, figures in rows]
        )


def _run_folder(folder: Path) -> Path:
    (found,) = (folder / "models").iterdir()
    return found


def _progress(folder: Path) -> tuple[int, int]:
    """Return the position of the latest checkpoint on disk."""
    latest = [survey_folder(run).latest for run in (folder / "models").glob("*")]
    return max((record.position for record in latest if record), default=(-1, -1))


def _assert_same_files(one: Path, undisturbed: Path, last_said: str = "") -> None:
    """Compare every file of the undisturbed run.

    Beside them the other may have the file that its last start began from, and, where that found nothing left to train,
    those that a kill after the last checkpoint kept from being deleted.
    """
    names = {path.name for path in undisturbed.glob("*.pth")}
    surplus = {path.name for path in one.glob("*.pth")} - names
    excused = _REACHED in last_said or all(name in last_said for name in surplus)
    assert excused, f"{surplus} should have been deleted:\n{last_said}"
    for name in sorted(names):
        if not name.startswith("best_model"):  # its weights are those of the best checkpoint
            assert not (found := differences(bits(one / name), bits(undisturbed / name), name)), found
    assert log_rows(one) == log_rows(undisturbed)


def main(wanted: int, corpus: Path | None) -> None:
    """Kill that often and print what was hit."""
    print(machine_text())
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        corpus = corpus.resolve() if corpus else write_corpus(root / "corpus")
        arguments = (*SETTINGS, *SAVING, "--num_epochs", str(EPOCHS), "--database_path", str(corpus))
        (root / "undisturbed").mkdir()
        fresh = run_once([*PROGRAM, *arguments, "--num_workers", "0"], root / "undisturbed")
        (root / "forked").mkdir()
        before = time.perf_counter()
        life = Life(root / "forked", (*arguments, "--num_workers", "2"), is_fresh=False)
        life.wait()
        assert life.exit_code == 0, life.said
        forked_s = time.perf_counter() - before
        _assert_same_files(_run_folder(root / "forked"), _run_folder(root / "undisturbed"))
        print(f"{EPOCHS} epochs undisturbed: {fresh.seconds:.1f} s with python main.py, {forked_s:.1f} s forked")
        kills = Kills(
            root,
            (*arguments, "--num_workers", "2"),
            _run_folder(root / "undisturbed"),
            forked_s * LONGEST_LIFE,
            fresh.seconds * LONGEST_LIFE,
            random.Random(SEED),
        )
        before = time.perf_counter()
        kills.go_on_until(wanted)
    print(kills.table())
    print(f"{kills.done} kills in {time.perf_counter() - before:.0f} s: nothing damaged, nothing lost, same bits")
    assert any(kills.counts[aim, "in a write"] for aim in (ANY_INSTANT, IN_A_WRITE, FRESH)), "no kill hit a write"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
