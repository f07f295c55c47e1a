"""How long a save of XLS-R's size holds training up: ours, beside torch.save and torch.distributed.checkpoint.

    python -m benchmarks.saving [FOLDER [GB [ROUNDS]]] [--device cuda]

The state is that of g3_heatmap on XLS-R 300M with random weights and Adam's moments, 3.8 GB; a step is forward,
backward and Adam: on the CPU of one waveform of one second, on a GPU of 14 of 4 s, as published. Each way of saving has
a process of its own, one after the other: steps without a save, then one save after the other, each into FOLDER
(default: a temporary folder; 4 GB are needed), with steps as long as it is in flight and some in between. Files are
deleted in between. That is done ROUNDS times, the ways in turn, and each figure is one to that of torch.save with fsync
in the same round. With GB, XLS-R has as many layers less.

"held" is what the loop loses at a save: state_dict() and the call that saves, and before the next update of the weights
the wait for a copy of them, for ours and async_save. "lost" adds what steps beside a save took longer than steps alone:
writing needs a processor too.
"durable" is from that call until the content is on disk: every way here syncs its files. Ours also writes a seal.
"quiet" is that time with no steps beside it, and "processor" what all threads but the loop's took for a save then.
"disk" is what the disk itself takes for the same number of zeros, by `dd oflag=direct` and fsync.
async_save is torch's, `no_dist=True`: with its defaults, and with a stager that keeps its memory between saves (on a
GPU pinned memory, filled beside training; shared memory needs a second process, so it is off). With torch
2.11 that stager fails at its second save: leave it out there, by --ways.
OMP_WAIT_POLICY is PASSIVE: threads that spin while they wait made a step take ten times as long on a busy machine.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.listing import XLS_R_300M_CONFIG
from benchmarks.measuring import REPOSITORY, machine_text, run_once

if TYPE_CHECKING:
    import torch

    from benchmarks.ways_of_saving import Way
    from training.state.train_state import TrainState

ROUNDS, SAVES = 3, 3
STEPS_BETWEEN = 3
WAYS = {
    "torch_save": "torch.save, then fsync",
    "ours": "ours",
    "async_save": "async_save, defaults",
    "async_save_kept": "async_save, memory kept",
}


@dataclass
class Figures:
    """What one way of saving took, in seconds; one entry per save, or per step."""

    held: list[float] = field(default_factory=list)
    durable: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    beside_a_save: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)

    @property
    def lost(self) -> float:
        """What one save cost training in all, the mean over saves."""
        slower = sum(self.beside_a_save) - len(self.beside_a_save) * statistics.median(self.alone)
        return (sum(self.held) + slower) / len(self.held)


def measure(way: str, folder: Path, gigabytes: float, device_type: str, saves: int) -> Figures:
    """Train and save in this process; imports torch here, so that the parent's memory stays small."""
    import torch  # noqa: PLC0415

    from benchmarks.ways_of_saving import way_of  # noqa: PLC0415

    num_threads, device = torch.get_num_threads(), torch.device(device_type)
    state, step = _training(gigabytes, device)
    step()
    saving = way_of(way, state, device)
    figures = Figures()
    for number in range(saves):
        for _ in range(STEPS_BETWEEN):
            figures.alone.append(_seconds(step))
        path = folder / f"{number}.pth"
        start = time.perf_counter()
        saving.begin(path)
        figures.held.append(time.perf_counter() - start)
        while saving.durable_at() is None:
            figures.beside_a_save.append(_seconds(step))
        figures.held[-1] += saving.held_later()
        durable_at = saving.durable_at()
        assert durable_at is not None
        figures.durable.append(durable_at - start)
        size = sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        _save_with_nothing_beside(saving, path, figures)
        figures.disk.append(_write_zeros(path, size))
    saving.close()
    assert torch.get_num_threads() == num_threads  # the last bits of training depend on it
    return figures


def _save_with_nothing_beside(saving: Way, path: Path, figures: Figures) -> None:
    start, processor, own = time.perf_counter(), time.process_time(), time.thread_time()
    saving.begin(path)
    is_in_the_call = saving.durable_at() is not None
    while (durable_at := saving.durable_at()) is None:
        time.sleep(0.01)
    figures.quiet.append(durable_at - start)
    figures.processor.append(time.process_time() - processor - (0 if is_in_the_call else time.thread_time() - own))
    saving.held_later()
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_zeros(path: Path, size: int) -> float:
    command = ["dd", "if=/dev/zero", f"of={path}", "bs=8M", f"count={size >> 23}", "oflag=direct", "conv=fsync"]
    seconds = _seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    path.unlink()
    return seconds


def _seconds(action: Callable[[], object]) -> float:
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def _training(gigabytes: float, device: torch.device) -> tuple[TrainState, Callable[[], object]]:
    """Return the state before its first step, of a size in GB or, with 0, of XLS-R; and what makes a step.

    A step has ended when the GPU has done it.
    """
    import torch  # noqa: PLC0415

    from models.build import rebuild_detector  # noqa: PLC0415
    from models.detector import DetectorSettings  # noqa: PLC0415
    from training.checkpoints.history import History, UnfinishedEpoch  # noqa: PLC0415
    from training.data.loading import Batch  # noqa: PLC0415
    from training.data.shares import StepBatches  # noqa: PLC0415
    from training.loop.step import take_step  # noqa: PLC0415
    from training.settings.options import Options  # noqa: PLC0415
    from training.settings.tasks import DETECTION  # noqa: PLC0415
    from training.state.train_state import TrainState  # noqa: PLC0415
    from training.tasks.detection import DetectionTask  # noqa: PLC0415
    from training.tasks.schedule import make_schedule  # noqa: PLC0415

    options = Options()
    torch.manual_seed(1)
    config = XLS_R_300M_CONFIG
    if gigabytes:  # weights and two moments of fewer of the same layers, 12.6 million values each
        config = {**config, "num_hidden_layers": max(3, round(gigabytes * 1e9 / 12 / 12.6e6))}
    is_cuda = device.type == "cuda"
    batch_size, samples = (14, 64_600) if is_cuda else (1, 16_000)
    detector = rebuild_detector(DetectorSettings(), config).train().to(device)
    optimizer = torch.optim.Adam(detector.parameters(), lr=1e-6)
    schedule = make_schedule(optimizer, options, 10_000)
    history = History(DETECTION.figures, UnfinishedEpoch(10_000), (("0123456789abcdef", 0),))
    state = TrainState({"model": detector}, {"optimizer": optimizer}, {"scheduler": schedule}, history)
    numbers = torch.arange(batch_size)
    batch = Batch(0.1 * torch.randn(batch_size, samples), 1 - numbers % 2, numbers)
    task = DetectionTask(options, device)

    def step() -> None:
        take_step(state, task, StepBatches.whole([batch]))
        if is_cuda:
            torch.cuda.synchronize()

    return state, step


def main() -> None:
    """Measure each way in a process of its own, in turn, and print them side by side."""
    parser = ArgumentParser(
        "python -m benchmarks.saving", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("gigabytes", nargs="?", type=float, default=0.0)
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--saves", type=int, default=SAVES, help="in each round")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="with torch_save")
    parser.add_argument("--measure", choices=WAYS, help="in this process, and print figures as JSON")
    asked = parser.parse_args()
    if "torch_save" not in asked.ways:
        parser.error("--ways: torch_save is what the others are compared with")
    if asked.measure:
        print(json.dumps(asdict(measure(asked.measure, asked.folder, asked.gigabytes, asked.device, asked.saves))))
        return
    print(machine_text(with_gpu=asked.device == "cuda"))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    found: dict[str, list[Figures]] = {way: [] for way in asked.ways}
    for _ in range(asked.rounds):
        for way in asked.ways:
            with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
                command = [sys.executable, "-m", "benchmarks.saving", folder, str(asked.gigabytes)]
                command += ["--measure", way, "--device", asked.device, "--saves", str(asked.saves)]
                cost = run_once(command, REPOSITORY)
            found[way].append(Figures(**json.loads(cost.output.splitlines()[-1])))
            told = ", ".join(f"{name} {figure(found[way][-1]):.3f}" for name, figure in FIGURES.items())
            memory, load = cost.peak_mib / 1024, os.getloadavg()[0]
            print(f"  {WAYS[way]}: {told}; peak memory {memory:.1f} GiB; load {load:.2f}", flush=True)
    _print_table(found, asked.saves)


FIGURES: dict[str, Callable[[Figures], float]] = {
    "held": lambda row: statistics.median(row.held),
    "durable": lambda row: statistics.median(row.durable),
    "lost": lambda row: row.lost,
    "quiet": lambda row: statistics.median(row.quiet),
    "processor": lambda row: statistics.median(row.processor),
    "disk": lambda row: statistics.median(row.disk),
    "step alone": lambda row: statistics.median(row.alone),
    "beside": lambda row: statistics.median(row.beside_a_save or [float("nan")]),
}
COMPARED = ("held", "durable", "lost", "quiet", "processor")


def _print_table(found: dict[str, list[Figures]], saves: int) -> None:
    number = len(found["torch_save"])
    print(f"medians of {number} rounds of {saves} saves, in seconds")
    print(f"{'':<26}" + "".join(f"{title:>11}" for title in FIGURES))
    for way, rows in found.items():
        cells = (f"{statistics.median(map(figure, rows)):11.3f}" for figure in FIGURES.values())
        print(f"  {WAYS[way]:<24}" + "".join(cells))
    print("of that of torch.save with fsync in the same round, median and range, in percent")
    for way, rows in found.items():
        ratios = {
            name: [
                100 * FIGURES[name](one) / FIGURES[name](base)
                for one, base in zip(rows, found["torch_save"], strict=True)
            ]
            for name in COMPARED
        }
        print(
            f"  {WAYS[way]:<24}"
            + "  ".join(f"{name} {statistics.median(r):.1f} ({min(r):.1f}-{max(r):.1f})" for name, r in ratios.items())
        )


if __name__ == "__main__":
    main()
