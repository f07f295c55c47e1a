"""What one step of XLS-R's size takes on a CPU: forward and backward in fp32 and bf16, Adam's update plain and fused.

    OMP_NUM_THREADS=2 python -m benchmarks.step [--batch_size N] [--seconds S] [--rounds N]

The detector is g3_heatmap on XLS-R 300M with random weights; about 8 GB of memory are needed. The four are measured in
turn in each round, the first of which is not counted; printed are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from benchmarks.listing import XLS_R_300M_CONFIG
from benchmarks.measuring import machine_text
from models.build import rebuild_detector
from models.detector import DetectorSettings
from training.checkpoints.history import History, UnfinishedEpoch
from training.data.loading import Batch
from training.settings.options import Options
from training.settings.tasks import DETECTION
from training.state.train_state import TrainState
from training.tasks.detection import DetectionTask
from training.tasks.task import Step

SAMPLE_RATE_HZ = 16_000
CPU = torch.device("cpu")


def main() -> None:
    """Print a line for each of the four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0375, help="length of a waveform")
    parser.add_argument("--rounds", type=int, default=5)
    command = parser.parse_args()
    print(machine_text())
    torch.manual_seed(1)
    networks: dict[str, torch.nn.Module] = {"model": rebuild_detector(DetectorSettings(), XLS_R_300M_CONFIG).train()}
    waveforms = 0.1 * torch.randn(command.batch_size, round(command.seconds * SAMPLE_RATE_HZ))
    labels = torch.arange(command.batch_size) % 2
    batch = Batch(waveforms, labels, torch.arange(command.batch_size))
    state = TrainState(networks, {}, {}, History(DETECTION.figures, UnfinishedEpoch(10), (("0123456789abcdef", 0),)))
    tasks = {precision: DetectionTask(Options(precision=precision), CPU) for precision in ("fp32", "bf16")}
    updates = {adam: DetectionTask(Options(adam=adam), CPU).optimizers(networks) for adam in ("plain", "fused")}
    seconds: dict[str, list[float]] = {}
    for _ in range(command.rounds + 1):
        for precision, task in tasks.items():
            for parameter in networks["model"].parameters():
                parameter.grad = None
            start = time.perf_counter()
            task.loss(state, batch, Step(labels, "optimizer")).value.backward()  # type: ignore[no-untyped-call]
            seconds.setdefault(f"forward and backward, {precision}", []).append(time.perf_counter() - start)
        for adam, (optimizer,) in ((adam, made.values()) for adam, made in updates.items()):
            start = time.perf_counter()
            optimizer.step()
            seconds.setdefault(f"update, {adam}", []).append(time.perf_counter() - start)
    parameters = sum(parameter.numel() for parameter in networks["model"].parameters())
    print(f"{parameters:,} parameters, {torch.get_num_threads()} threads, {command.batch_size} x {command.seconds:g} s")
    for name, measured in seconds.items():
        print(f"{name:<28}{statistics.median(measured[1:]):>8.2f} s")


if __name__ == "__main__":
    main()
