"""Lets the calls of whole trainings fail, below Python, one in each run: what a user sees, what is left, what goes on.

    python -m benchmarks.fault_sweep [PROCESSES [PART OF A TRAINING'S NAME [MOST]]]

With MOST no more faults of a training than that. They come in a random order, and the table so far is printed now and
then: a sweep that is ended early has tried a fair sample.

Calls that open, read, write, sync, rename, link, unlink, close, make or look at something in the folders of a training
fail with EIO or ENOSPC, do half of what was asked, or are the last of their process (`tests/fault_sweep/cases.py`). The
task of two networks gets every fault of every call; the other trainings those of the first, a middle and the last call
of each site. After each fault: no traceback, one sentence where the exit code is 1, the whole result where it is 0; no
checkpoint that was said to be saved is gone, and none is damaged; the next start ends with the bits of the undisturbed
training and leaves nothing behind. A call that does not come again is waited for in three trainings, and named.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from benchmarks.measuring import machine_text
from tests.conftest import write_corpus
from tests.crash_states.scenarios import warm_up
from tests.fault_sweep.cases import Case, first_middle_last
from tests.fault_sweep.trainings import EXHAUSTIVE, TRAININGS
from tests.fault_sweep.trying import Outcome, Undisturbed, try_case
from tests.system_calls.recorder import why_not_here

_BATCH = 2
_TRIES = 3
_SEED = 20261126


def _begin(corpus: Path, top: Path) -> None:
    torch.set_num_threads(1)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (the plan of what it trains first)
    os.chdir(tempfile.mkdtemp(dir=top))
    warm_up(Path(), corpus)


@functools.cache
def _undisturbed(name: str, corpus: Path) -> Undisturbed:
    scenario, place = TRAININGS[name], Path(name.replace(" ", "_")).absolute()
    if not scenario.before:  # its forks then find imported and compiled what it imports and compiles
        warm = place / "warm"
        warm.mkdir(parents=True)
        with contextlib.chdir(warm):
            assert scenario.work(scenario.command, corpus)() == 0
    return Undisturbed.trained(scenario, corpus, place, with_stats=True)


def _cases(name: str, corpus: Path) -> tuple[int, int, Sequence[Case]]:
    """Return the numbers of calls and of faults that they may have, and the faults to try."""
    undisturbed = _undisturbed(name, corpus)
    cases = undisturbed.cases if name in EXHAUSTIVE else first_middle_last(undisturbed.cases)
    return undisturbed.num_calls, len(undisturbed.cases), cases


def _do(name: str, corpus: Path, cases: Sequence[Case]) -> list[Outcome]:
    undisturbed = _undisturbed(name, corpus)
    return [_tried(case, undisturbed) for case in cases]


def _tried(case: Case, undisturbed: Undisturbed) -> Outcome:
    """Try a case, again where its call did not come: how often the program looks at something depends on its pace."""
    for _ in range(_TRIES):
        outcome = try_case(case, undisturbed, Path("case").absolute())
        if outcome.struck or outcome.wrong:
            break
    return outcome


def _table(outcomes: Sequence[Outcome]) -> str:
    """Return a row for each kind of call, with a column for each fault: broken of tried."""
    faults = ("EIO", "ENOSPC", "short", "killed")
    tried = Counter((one.case.kind, one.case.fault) for one in outcomes if one.struck)
    broken = Counter((one.case.kind, one.case.fault) for one in outcomes if one.struck and one.wrong)
    rows = [f"    {'':15}" + "".join(f"{fault:>12}" for fault in faults) + "   (broken / tried)"]
    for kind in sorted({kind for kind, _ in tried}):
        cells = (f"{broken[kind, f]} / {tried[kind, f]}" if tried[kind, f] else "" for f in faults)
        rows.append(f"    {kind:15}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(rows)


def _swept(name: str, corpus: Path, pool: ProcessPoolExecutor, most: int | None) -> int:
    """Sweep one training, print what came of it, and return how much is broken."""
    began = time.monotonic()
    num_calls, num_faults, cases = pool.submit(_cases, name, corpus).result()
    cases = random.Random(_SEED).sample(cases, min(most or len(cases), len(cases)))
    num_sites = len({case.site for case in cases})
    print(
        f"{name}: {num_calls:,} calls, {num_faults:,} faults of them, {len(cases):,} to try at {num_sites:,} sites",
        flush=True,
    )
    outcomes: list[Outcome] = []
    batches = [cases[at : at + _BATCH] for at in range(0, len(cases), _BATCH)]
    for done in pool.map(_do, [name] * len(batches), [corpus] * len(batches), batches):
        outcomes += done
        for one in done:
            if one.wrong:
                print(f"BROKEN: {name}: {one.case}", *one.wrong, sep="\n    ")
                print(f"    exit code {one.exit_code}, it said: {one.output[-2000:]}", flush=True)
        if len(outcomes) % 10 < len(done) or len(outcomes) == len(cases):
            told = f"{len(outcomes):,} of {num_faults:,} faults of {num_calls:,} calls tried"
            print(
                f"{name}: {told}, {_summary(outcomes)}; {time.monotonic() - began:.0f} s\n{_table(outcomes)}",
                flush=True,
            )
    for one in outcomes:
        if not one.struck:
            print(f"did not come again in {_TRIES} trainings: {one.case}", flush=True)
    return sum(bool(one.wrong) for one in outcomes)


def _summary(outcomes: Sequence[Outcome]) -> str:
    struck = [one for one in outcomes if one.struck]
    ends = dict(Counter(one.exit_code for one in struck))
    return f"{len(struck):,} struck, {sum(bool(one.wrong) for one in struck)} broken; exit codes {ends}"


def main() -> None:
    """Sweep every training and print what came of it."""
    if reason := why_not_here():
        sys.exit(reason)
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    most = int(sys.argv[3]) if len(sys.argv) > 3 else None
    names = [name for name in TRAININGS if not sys.argv[2:] or sys.argv[2] in name]
    print(machine_text())
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        corpus = write_corpus(Path(folder, "corpus"), train=8, dev=4)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _begin, (corpus, Path(folder))) as pool:
            broken = sum(_swept(name, corpus, pool, most) for name in names)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
