"""How long a checkpoint takes to be verified and loaded, for going on and for scoring, with and without the page cache.

    python -m benchmarks.opening [GB [FOLDER]]

The file holds weights and two moments of each, as a run with Adam saves them, in tensors of 4 MB. Each row is one
process, the median of ROUNDS, the rows in turn; imports are not counted. "cold" is after the file was dropped from the
page cache (posix_fadvise), "processor" the time of all threads. Beside it: `cat FILE > /dev/null`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.measuring import REPOSITORY, machine_text, run_once

ROUNDS = 5
TENSOR_VALUES = 1 << 20
ROWS = [(what, state) for what in ("go on", "score") for state in ("warm", "cold")]


def write(path: Path, gigabytes: float) -> None:
    """Write a checkpoint of this size, in GB; imports torch here, so that the parent's memory stays small."""
    import torch  # noqa: PLC0415

    from tests.records import record  # noqa: PLC0415
    from training.checkpoints.record import REQUIRED_KEYS  # noqa: PLC0415
    from training.saving.store import save_checkpoint  # noqa: PLC0415

    number = round(gigabytes * 1e9 / 3 / 4 / TENSOR_VALUES)
    weights, first, second = ({f"{index}": torch.randn(TENSOR_VALUES) for index in range(number)} for _ in range(3))
    state = {index: {"exp_avg": first[f"{index}"], "exp_avg_sq": second[f"{index}"]} for index in range(number)}
    parts = {"model_state_dict": weights, "optimizer_state_dict": {"state": state}, "scheduler_state_dict": {}}
    save_checkpoint(path, dict.fromkeys(REQUIRED_KEYS) | parts | {"front_end_config": {}}, record(path.name, 3))


def measure(what: str, path: Path) -> tuple[float, float]:
    """Verify and load in this process; return the seconds that it took, and those of the processor."""
    from training.checkpoints.verified_file import open_verified  # noqa: PLC0415
    from training.checkpoints.weights import load_weights  # noqa: PLC0415
    from training.saving.store import load_payload  # noqa: PLC0415

    before = time.perf_counter(), time.process_time()
    opened = open_verified(path)
    if what == "score":
        opened.digest()
        load_weights(opened)
    else:
        load_payload(opened)
    return time.perf_counter() - before[0], time.process_time() - before[1]


def _prepare(path: Path, state: str) -> float:
    """Put a file into the page cache or drop it from there; return how long reading it takes then."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if state == "cold":
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if state == "cold":
        return 0.0
    began = time.perf_counter()
    subprocess.run(["cat", str(path)], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main(gigabytes: str = "3.8", where: str | None = None) -> None:
    """Write a file, then measure each row in a process of its own, in turn, and print them."""
    print(machine_text())
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=where) as folder:
        path, python = Path(folder, "checkpoint_epoch_3.pth"), [sys.executable, "-m", "benchmarks.opening"]
        run_once([*python, "--write", gigabytes, str(path)], REPOSITORY)
        for _ in range(ROUNDS):
            for what, state in ROWS:
                _prepare(path, state)
                cost = run_once([*python, "--measure", what, str(path)], REPOSITORY)
                found[what, state].append((*json.loads(cost.output.splitlines()[-1]), cost.peak_mib))
        alone = statistics.median(_prepare(path, "warm") for _ in range(ROUNDS))
        print(
            f"{path.stat().st_size / 1e9:.1f} GB, medians of {ROUNDS}; load average {os.getloadavg()[0]:.1f} at the end"
        )
    print(f"  {'':<14}{'wall':>9}{'processor':>12}{'peak memory':>14}")
    for (what, state), rows in found.items():
        wall, processor, peak = map(statistics.median, zip(*rows, strict=True))
        print(f"  {what + ', ' + state:<14}{wall:7.2f} s{processor:10.2f} s{peak:10.0f} MiB")
    print(f"  {'cat, warm':<14}{alone:7.2f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
    elif sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[3]), float(sys.argv[2]))
    else:
        main(*sys.argv[1:3])
