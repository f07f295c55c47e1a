"""What a step of XLS-R's size takes: forward and backward in each precision, Adam's update plain and fused, all of it.

    OMP_NUM_THREADS=2 python -m benchmarks.step [--batch_size N] [--seconds S] [--rounds N] [--device cuda]

The detector is g3_heatmap on XLS-R 300M with random weights; about 8 GB of memory are needed. All are measured in turn
in each round, the first of which is not counted; printed are medians. Steps are whole ones in fp32 with fused Adam:
ours, with seeds, figures and checks, and that of a loop as torch's tutorial has it, which reads its loss once a step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import cast

import torch

from benchmarks.listing import XLS_R_300M_CONFIG
from benchmarks.measuring import machine_text
from models.build import rebuild_detector
from models.detector import Detector, DetectorSettings
from models.precision import autocast
from training.checkpoints.history import History, UnfinishedEpoch
from training.data.loading import Batch
from training.data.shares import StepBatches
from training.loop.step import take_step
from training.settings.options import Options
from training.settings.tasks import DETECTION
from training.state.train_state import TrainState
from training.tasks.detection import DetectionTask
from training.tasks.losses import weighted_cross_entropy
from training.tasks.schedule import make_schedule
from training.tasks.task import Step
from utils.machine import make_deterministic

SAMPLE_RATE_HZ = 16_000
LOOSE = ", as a tutorial has it"  # and with whatever kernels torch likes best


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0375, help="length of a waveform")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command = parser.parse_args()
    device = torch.device(command.device)
    is_cuda = device.type == "cuda"
    print(machine_text(with_gpu=is_cuda))
    make_deterministic()
    torch.manual_seed(1)
    detector = rebuild_detector(DetectorSettings(), XLS_R_300M_CONFIG).train().to(device)
    waveforms = 0.1 * torch.randn(command.batch_size, round(command.seconds * SAMPLE_RATE_HZ))
    labels = torch.arange(command.batch_size) % 2
    batch = Batch(waveforms, labels, torch.arange(command.batch_size))
    seconds: dict[str, list[float]] = {}

    def measure(name: str, action: Callable[[], object]) -> None:
        start = time.perf_counter()
        action()
        if is_cuda:
            torch.cuda.synchronize()
        seconds.setdefault(name, []).append(time.perf_counter() - start)

    parts = _parts(detector, batch, device)
    for _ in range(command.rounds + 1):
        for name, action in parts.items():
            if name.startswith("forward"):
                detector.zero_grad(set_to_none=True)
            torch.use_deterministic_algorithms(not name.endswith(LOOSE))
            measure(name, action)
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    print(f"{parameters:,} parameters, {torch.get_num_threads()} threads, {command.batch_size} x {command.seconds:g} s")
    for name, measured in seconds.items():
        kept = [1000 * one for one in measured[1:]]
        print(f"{name:<42}{statistics.median(kept):>9.1f} ms ({min(kept):.1f} to {max(kept):.1f})")
    if is_cuda:
        print(f"most GPU memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def _parts(detector: Detector, batch: Batch, device: torch.device) -> dict[str, Callable[[], object]]:
    """Return what is measured by its name, in the order in which it is done."""
    networks: dict[str, torch.nn.Module] = {"model": detector}
    history = History(DETECTION.figures, UnfinishedEpoch(10), (("0123456789abcdef", 0),))
    precisions = ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16")
    updates = {adam: DetectionTask(Options(adam=adam), device).optimizers(networks) for adam in ("plain", "fused")}
    adam = updates["fused"]["optimizer"]
    schedule = make_schedule(adam, Options(), 10_000)
    state = TrainState(networks, updates["fused"], {"scheduler": schedule}, history)
    on_device = batch.to(device)

    def backward(task: DetectionTask) -> None:
        loss = task.loss(state, on_device, Step(batch.labels, "optimizer")).value
        loss.backward()  # type: ignore[no-untyped-call]

    def plainly(precision: str) -> float:
        adam.zero_grad()
        given = batch.to(device)
        with autocast(device, precision):
            output = detector(given.waveforms)
        loss = weighted_cross_entropy(output, given.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        schedule.step()
        return cast(float, loss.item())

    whole = StepBatches.whole([batch])
    tasks = {precision: DetectionTask(Options(precision=precision), device) for precision in precisions}
    parts: dict[str, Callable[[], object]] = {}
    for precision, task in tasks.items():
        parts[f"forward and backward, {precision}"] = partial(backward, task)
    for name, (optimizer,) in ((name, made.values()) for name, made in updates.items()):
        parts[f"update, {name}"] = optimizer.step
    for precision in ("fp32", "bf16"):
        parts[f"step in {precision}, ours"] = partial(take_step, state, tasks[precision], whole)
        parts[f"step in {precision}{LOOSE}"] = partial(plainly, precision)
    return parts


if __name__ == "__main__":
    main()
