"""Kills trainings under --max_lost at random moments: how much work was lost, and what the saves cost.

    python -m benchmarks.max_lost [--kills 200] [--max_lost 20s] [--seed N]

One training goes on from life to life (`--auto_resume`); each life is ended by SIGKILL at an instant that is drawn
between the start of its training and one and a half bounds later. Lost is the time from the moment when the state of
the newest checkpoint was taken (or training began, where this life saved none) to the kill. A bound that the program
itself said cannot hold there is counted apart. Then the same training is timed with and without saves by time, in
turns: processor time, since other programs keep the machine busy.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from importlib import import_module
from pathlib import Path

from benchmarks.killing.life import Life
from benchmarks.measuring import PROGRAM, machine_text, run_once
from tests.conftest import write_corpus
from training.runs.survey import survey_folder
from training.settings.setting import seconds_in

IMPORTED_ONCE = ("training.loop.session",)
RUN = (
    *("--ssl_model", "compact", "--batch_size", "2", "--lr", "1e-3", "--num_workers", "0", "--comment", "bound"),
    *("--save_interval", "0", "--keep_last_n", "1"),
)
LONGEST_LIFE = 1.5  # bounds
CANNOT_HOLD = "cannot hold"


def main() -> None:
    """Print how many kills stayed within the bound, the losses, and what the saves cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--max_lost", default="20s")
    parser.add_argument("--utterances", type=int, default=1200)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=20261126)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(machine_text(), flush=True)
    for module in IMPORTED_ONCE:
        import_module(module)
    with tempfile.TemporaryDirectory(prefix="max_lost_") as root:
        corpus = write_corpus(Path(root) / "corpus", train=asked.utterances)
        kill(Path(root), corpus, asked.kills, asked.max_lost, random.Random(asked.seed))
        compare(Path(root), corpus, asked.max_lost, asked.pairs)


def kill(root: Path, corpus: Path, wanted: int, typed: str, draw: random.Random) -> None:
    """Kill so often, and print what was lost each time."""
    folder, bound = root / "killed", seconds_in(typed)
    folder.mkdir()
    words = (*RUN, "--database_path", str(corpus), "--num_epochs", "10000", "--auto_resume", "--max_lost", typed)
    losses: list[float] = []
    broken, announced, saved_none, lives = 0, 0, 0, 0
    while len(losses) < wanted:
        lives += 1
        life = Life(folder, words)
        life.wait_until_it_trains()
        began = time.time()
        life.wait(draw.uniform(0.0, LONGEST_LIFE * bound))
        assert life.is_running, life.said
        life.end(kill_after_s=0.0)
        killed = time.time()
        taken = _newest_taken_at(folder)
        saved_none += taken < began
        losses.append(killed - max(taken, began))
        if losses[-1] > bound:
            broken += 1
            announced += CANNOT_HOLD in life.said
        if lives % 10 == 0 or losses[-1] > bound:
            print(f"{lives} kills: {losses[-1]:.2f} s lost, within the bound {len(losses) - broken}", flush=True)
    found = sorted(losses)
    print(
        f"--max_lost {typed}: within the bound in {wanted - broken} of {wanted} SIGKILLs ({announced} of the others "
        f"where the program had said that it cannot hold; {saved_none} before the first save of a life)\n"
        f"lost: median {statistics.median(found):.2f} s, 95th percentile {found[int(0.95 * wanted)]:.2f} s, most "
        f"{found[-1]:.2f} s",
        flush=True,
    )


def _newest_taken_at(folder: Path) -> float:
    """Return when the state of the newest checkpoint was taken, in seconds since 1970; 0 for none."""
    runs = list((folder / "models").glob("*"))
    latest = survey_folder(runs[0]).latest if runs else None
    return latest.saved_at_s or 0.0 if latest else 0.0


def compare(root: Path, corpus: Path, typed: str, pairs: int) -> None:
    """Print the processor time of an epoch with saves by time and without any within the epoch, in turns."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(pairs):
        for has_bound in (True, False):
            folder = root / f"timed_{pair}_{has_bound}"
            folder.mkdir()
            words = [*PROGRAM, *RUN, "--database_path", str(corpus), "--num_epochs", "1"]
            cost = run_once([*words, *(["--max_lost", typed] if has_bound else [])], folder)
            seconds[has_bound].append(cost.cpu_seconds)
            told = [line for line in cost.output.splitlines() if "--max_lost" in line and "NOTE" in line]
            print(
                f"{'with' if has_bound else 'without'}: {cost.cpu_seconds:.2f} s of CPU, {cost.seconds:.1f} s. {told}"
            )
    with_saves, without = (min(seconds[which]) for which in (True, False))
    print(
        f"an epoch: {with_saves:.2f} s of CPU with --max_lost {typed}, {without:.2f} s without: "
        f"{100 * (with_saves / without - 1):+.1f} %",
        flush=True,
    )


if __name__ == "__main__":
    main()
