"""How long a save of XLS-R's size holds training up: ours, beside torch.save and torch.distributed.checkpoint.

    python -m benchmarks.saving [FOLDER]

The state is that of g3_heatmap on XLS-R 300M with random weights and Adam's moments, 3.8 GB, on the CPU; a step is
forward, backward and Adam on one waveform of one second. Each way of saving has a process of its own, one after the
other: steps without a save, then one save after the other, each into FOLDER (default: a temporary folder; 4 GB are
needed), with steps as long as it is in flight and some in between. Files are deleted in between.

"held" is what the loop loses at a save: state_dict() and the call that saves, and for ours the fence in the next
optimizer step. "lost" adds what steps beside a save took longer than steps alone: writing needs a processor too.
"durable" is from that call until the content is on disk: every way here syncs its files. Ours also writes a seal.
async_save is torch's, `no_dist=True`: with its defaults, and with a stager that keeps its memory between saves (pinned
and shared memory need CUDA or a second process, so they are off).
OMP_WAIT_POLICY is PASSIVE: threads that spin while they wait made a step take ten times as long on a busy machine.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
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

SAVES = 3
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


def measure(way: str, folder: Path) -> Figures:
    """Train and save in this process; imports torch here, so that the parent's memory stays small."""
    import torch  # noqa: PLC0415

    num_threads = torch.get_num_threads()
    state, step = _training()
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
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    saving.close()
    assert torch.get_num_threads() == num_threads  # the last bits of training depend on it
    return figures


def _seconds(action: Callable[[], object]) -> float:
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def _training() -> tuple[TrainState, Callable[[], object]]:
    """Return the state before its first step, and what makes a step."""
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
    detector = rebuild_detector(DetectorSettings(), XLS_R_300M_CONFIG).train()
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


def main(where: str | None = None) -> None:
    """Measure each way in a process of its own, and print them side by side."""
    print(machine_text())
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    found = {}
    for way, title in WAYS.items():
        with tempfile.TemporaryDirectory(dir=where) as folder:
            cost = run_once([sys.executable, "-m", "benchmarks.saving", "--measure", way, folder], REPOSITORY)
        found[way] = Figures(**json.loads(cost.output.splitlines()[-1]))
        load = os.getloadavg()[0]
        print(f"  measured: {title}; peak memory {cost.peak_mib / 1024:.1f} GiB; load {load:.2f}", flush=True)
    _print_table(found)
    ours = statistics.median(found["ours"].held)
    for way, title in WAYS.items():
        if way != "ours":
            percent = 100 * ours / statistics.median(found[way].held)
            print(f"  held by ours / by {title:<24}{percent:6.2f} %")


def _print_table(found: dict[str, Figures]) -> None:
    titles = ("held", "(first)", "lost", "durable", "step alone", "beside a save")
    print(f"medians of {SAVES} saves, in seconds; one step: 1 waveform of 1 s")
    print(f"{'':<26}" + "".join(f"{title:>14}" for title in titles))
    for way, title in WAYS.items():
        row = found[way]
        columns = (row.held, row.held[:1], [row.lost], row.durable, row.alone, row.beside_a_save)
        cells = (f"{statistics.median(column):14.3f}" if column else f"{'none':>14}" for column in columns)
        print(f"  {title:<24}" + "".join(cells))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(asdict(measure(sys.argv[2], Path(sys.argv[3])))))
    else:
        main(*sys.argv[1:2])
