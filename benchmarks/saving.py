"""How long a save of XLS-R's size holds training up: ours, beside torch.save and torch.distributed.checkpoint.

    python -m benchmarks.saving [FOLDER [GB]]

The state is that of g3_heatmap on XLS-R 300M with random weights and Adam's moments, 3.8 GB, on the CPU; a step is
forward, backward and Adam on one waveform of one second. Each way of saving has a process of its own, one after the
other: steps without a save, then one save after the other, each into FOLDER (default: a temporary folder; 4 GB are
needed), with steps as long as it is in flight and some in between. Files are deleted in between. That is done ROUNDS
times, the ways in turn, and each figure is one to that of torch.save with fsync in the same round. With GB, XLS-R has
as many layers less.

"held" is what the loop loses at a save: state_dict() and the call that saves, and for ours the fence in the next
optimizer step. "lost" adds what steps beside a save took longer than steps alone: writing needs a processor too.
"durable" is from that call until the content is on disk: every way here syncs its files. Ours also writes a seal.
"quiet" is that time with no steps beside it, and "processor" what all threads but the loop's took for a save then.
"disk" is what the disk itself takes for the same number of zeros, by `dd oflag=direct` and fsync.
async_save is torch's, `no_dist=True`: with its defaults, and with a stager that keeps its memory between saves (pinned
and shared memory need CUDA or a second process, so they are off).
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
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.listing import XLS_R_300M_CONFIG
from benchmarks.measuring import REPOSITORY, machine_text, run_once

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class Way:
    """One way of saving: `begin` saves step N into a path; `held_later` is what it held up the loop since, in seconds.

    `durable_at` is the time when the save was on disk, None while it is under way.
    """

    begin: Callable[[Path], None]
    durable_at: Callable[[], float | None]
    held_later: Callable[[], float] = lambda: 0.0
    close: Callable[[], object] = lambda: None


def measure(way: str, folder: Path, gigabytes: float) -> Figures:
    """Train and save in this process; imports torch here, so that the parent's memory stays small."""
    import torch  # noqa: PLC0415

    num_threads = torch.get_num_threads()
    state, step = _training(gigabytes)
    step()
    saving = _ways(state)[way]()
    figures = Figures()
    for number in range(SAVES):
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


def _training(gigabytes: float) -> tuple[TrainState, Callable[[], object]]:
    """Return the state before its first step, of a size in GB or, with 0, of XLS-R; and what makes a step."""
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
        config = {**config, "num_hidden_layers": max(1, round(gigabytes * 1e9 / 12 / 12.6e6))}
    detector = rebuild_detector(DetectorSettings(), config).train()
    optimizer = torch.optim.Adam(detector.parameters(), lr=1e-6)
    schedule = make_schedule(optimizer, options, 10_000)
    history = History(DETECTION.figures, UnfinishedEpoch(10_000), (("0123456789abcdef", 0),))
    state = TrainState({"model": detector}, {"optimizer": optimizer}, {"scheduler": schedule}, history)
    batch = Batch(0.1 * torch.randn(1, 16_000), torch.tensor([1]), torch.tensor([0]))
    task = DetectionTask(options, torch.device("cpu"))
    return state, lambda: take_step(state, task, StepBatches.whole([batch]))


def _ways(state: TrainState) -> dict[str, Callable[[], Way]]:
    return {
        "torch_save": lambda: _torch_save(state),
        "ours": lambda: _ours(state),
        "async_save": lambda: _async_save(state, keeps_memory=False),
        "async_save_kept": lambda: _async_save(state, keeps_memory=True),
    }


def _torch_save(state: TrainState) -> Way:
    import torch  # noqa: PLC0415

    def begin(path: Path) -> None:
        torch.save(state.to_payload(), path)
        with path.open("rb") as file:
            os.fsync(file.fileno())

    return Way(begin, time.perf_counter)


def _ours(state: TrainState) -> Way:
    from training.checkpoints.record import CheckpointRecord, Kind  # noqa: PLC0415
    from training.saving.background_saving import (  # noqa: PLC0415
        BackgroundSaver,
        fence_before_updates,
        tensors_that_steps_change,
    )
    from training.saving.save_control import SaveControl  # noqa: PLC0415
    from training.saving.store import save_checkpoint  # noqa: PLC0415
    from training.settings.options import Options  # noqa: PLC0415
    from training.state.snapshot import RunFacts, take_snapshot  # noqa: PLC0415

    facts = RunFacts(Options(), {}, XLS_R_300M_CONFIG, {})
    paths: list[Path] = []
    begun: list[float] = []
    ended: list[float] = []

    def commit(payload: dict[str, Any], record: CheckpointRecord, control: SaveControl) -> Path:
        path = paths[-1]
        save_checkpoint(path, payload, record, control.check)
        ended.append(time.perf_counter())
        return path

    saver = BackgroundSaver(
        commit, lambda: tensors_that_steps_change(state.networks.values(), state.optimizers.values())
    )
    hooks = fence_before_updates(saver.fence, state.optimizers.values())
    saver.prepare()

    def begin(path: Path) -> None:
        saver.collect()
        paths.append(path)
        saver.begin(*take_snapshot(state, facts, Kind.STEP))
        begun.append(saver.blocked.last_seconds)

    def durable_at() -> float | None:
        return ended[-1] if len(ended) == len(paths) else None

    def close() -> None:
        hooks.close()
        saver.close()

    return Way(begin, durable_at, lambda: saver.blocked.last_seconds - begun[-1], close)


def _async_save(state: TrainState, keeps_memory: bool) -> Way:
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions  # noqa: PLC0415
    from torch.distributed.checkpoint.state_dict_saver import async_save  # noqa: PLC0415

    stager = DefaultStager(StagingOptions(False, False, False, False)) if keeps_memory else None
    saves: list[Any] = []
    ended: list[float] = []

    def begin(path: Path) -> None:
        payload = state.to_payload()
        wanted = {key: payload[key] for key in ("model_state_dict", "optimizer_state_dict")}
        answer: Any = async_save(wanted, checkpoint_id=path, no_dist=True, async_stager=stager)
        saves.append(getattr(answer, "upload_completion", answer))
        saves[-1].add_done_callback(lambda _: ended.append(time.perf_counter()))

    def durable_at() -> float | None:
        if len(ended) < len(saves):
            return None
        saves[-1].result()
        return ended[-1]

    return Way(begin, durable_at, close=stager.close if stager else lambda: None)


def main(where: str | None = None, gigabytes: str = "0", rounds: str = str(ROUNDS)) -> None:
    """Measure each way in a process of its own, in turn, and print them side by side."""
    print(machine_text())
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    found: dict[str, list[Figures]] = {way: [] for way in WAYS}
    for _ in range(int(rounds)):
        for way, title in WAYS.items():
            with tempfile.TemporaryDirectory(dir=where) as folder:
                command = [sys.executable, "-m", "benchmarks.saving", "--measure", way, folder, gigabytes]
                cost = run_once(command, REPOSITORY)
            found[way].append(Figures(**json.loads(cost.output.splitlines()[-1])))
            load = os.getloadavg()[0]
            print(f"  measured: {title}; peak memory {cost.peak_mib / 1024:.1f} GiB; load {load:.2f}", flush=True)
    _print_table(found)


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


def _print_table(found: dict[str, list[Figures]]) -> None:
    number = len(found["torch_save"])
    print(f"medians of {number} rounds of {SAVES} saves, in seconds; one step: 1 waveform of 1 s")
    print(f"{'':<26}" + "".join(f"{title:>11}" for title in FIGURES))
    for way, title in WAYS.items():
        cells = (f"{statistics.median(map(figure, found[way])):11.3f}" for figure in FIGURES.values())
        print(f"  {title:<24}" + "".join(cells))
    print("of that of torch.save with fsync in the same round, median and range, in percent")
    for way, title in WAYS.items():
        ratios = {
            name: [
                100 * FIGURES[name](one) / FIGURES[name](base)
                for one, base in zip(found[way], found["torch_save"], strict=True)
            ]
            for name in COMPARED
        }
        print(
            f"  {title:<24}"
            + "  ".join(f"{name} {statistics.median(r):.1f} ({min(r):.1f}-{max(r):.1f})" for name, r in ratios.items())
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(asdict(measure(sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])))))
    else:
        main(*sys.argv[1:4])
