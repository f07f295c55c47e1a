"""Damages checkpoints at random places, thousands of times: is each noticed, and what would torch.load have done?

    python -m benchmarks.damage [TIMES]

Trains the compact detector until mid-epoch and damages its files (epochs, steps, weights; and those of format 1 that
the tests keep), half of the times the newest one. Flips a bit, fills a block of 512 bytes to 4 KiB with zeros (one that
held zeros already would be as it was, so another is taken), or cuts the file. Each time `--validate_checkpoints` must
call this file bad and no other, loading must refuse it, and `--auto_resume` must land on the newest good file and name
the damaged one where that is newer. The last column is how many of them torch.load(weights_only=True) alone takes.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import astuple
from pathlib import Path

from benchmarks.measuring import machine_text
from tests.damaging import DAMAGES, draw_file, make_victims, outcome_of

SEED = 20261124
COLUMNS = ("times", "reported", "refused", "auto-resume right", "torch takes it")


def main(times: int) -> None:
    """Print a row for each kind of damage and how often each kind of file was hit; fail where one got through."""
    print(machine_text())
    draw, counts, hit = random.Random(SEED), Counter[tuple[str, str]](), Counter[str]()
    began_s, got_through = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        victims = make_victims(Path(folder))
        for number in range(times):
            kind = list(DAMAGES)[number % len(DAMAGES)]
            victim, file = draw_file(victims, draw)
            found = outcome_of(victim, file, DAMAGES[kind](file.names[0].read_bytes(), draw))
            seen = (True, *astuple(found))
            counts.update((kind, column) for column, is_so in zip(COLUMNS, seen, strict=True) if is_so)
            hit[file.what] += 1
            if not found.is_as_promised:
                got_through.append(f"damage {number} ({kind} in {file.names[0].name}): {found}")
            if number % 200 == 199:
                print(f"{number + 1} done", flush=True)
        os.chdir("/")
    print(f"{'':14}" + "".join(f"{column:>19}" for column in COLUMNS))
    for kind in DAMAGES:
        print(f"{kind:14}" + "".join(f"{counts[kind, column]:19}" for column in COLUMNS))
    print("Files hit: " + ", ".join(f"{what} {number}" for what, number in sorted(hit.items())))
    print(f"{times} damages in {time.perf_counter() - began_s:.0f} s")
    if got_through:
        raise SystemExit("\n".join(["GOT THROUGH:", *got_through]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
