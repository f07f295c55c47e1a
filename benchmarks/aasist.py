"""What a training step and scoring cost with aasist and aasist_l, beside the published implementation.

    OMP_NUM_THREADS=1 python -m benchmarks.aasist [--published FOLDER] [--batch_size N] [--repeats N]

FOLDER of --published is a checkout of github.com/clovaai/aasist; without it only our own figures are printed. Both
networks run in one process, turn by turn, on the same batch of noise, 64,600 samples an utterance. A step is forward,
loss and backward; the optimizer is the same for both.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measuring import machine_text
from models.build import create_detector
from models.detector import DetectorSettings
from training.tasks.losses import weighted_cross_entropy
from utils.audio.waveforms import CROP_SAMPLES

CONFIGS = {"aasist": "AASIST.conf", "aasist_l": "AASIST-L.conf"}


class _Published(nn.Module):
    """The published network with log-probabilities as its output."""

    def __init__(self, folder: Path, config: str) -> None:
        super().__init__()
        spec = importlib.util.spec_from_file_location("published_aasist", folder / "models" / "AASIST.py")
        assert spec and spec.loader
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.model: nn.Module = module.Model(json.loads((folder / "config" / config).read_text())["model_config"])

    def forward(self, waveform: Tensor) -> Tensor:
        log_probabilities: Tensor = self.model(waveform)[1].log_softmax(dim=-1)
        return log_probabilities


def step(network: nn.Module, waveforms: Tensor, labels: Tensor) -> None:
    """Make one forward and backward pass in training mode."""
    network.train().zero_grad()
    weighted_cross_entropy(network(waveforms), labels).backward()  # type: ignore[no-untyped-call]


def score(network: nn.Module, waveforms: Tensor, labels: Tensor) -> None:  # noqa: ARG001 - called as `step` is
    """Make one forward pass in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        network(waveforms)


def milliseconds(work: Callable[[nn.Module, Tensor, Tensor], None], network: nn.Module, batch_size: int) -> float:
    """Return the processor time per utterance: other programs on the machine then count less."""
    waveforms = torch.randn(batch_size, CROP_SAMPLES, generator=torch.Generator().manual_seed(1)) / 10
    before = time.process_time()
    work(network, waveforms, torch.arange(batch_size) % 2)
    return (time.process_time() - before) / batch_size * 1e3


def main(published: Path | None, batch_size: int, repeats: int) -> None:
    """Measure both detectors, training and scoring."""
    print(machine_text())
    print(f"batches of {batch_size}, {torch.get_num_threads()} threads, median of {repeats}")
    print(f"{'processor ms per utterance':<30}{'ours':>12}" + (f"{'published':>12}{'ratio':>9}" if published else ""))
    for model_type, config in CONFIGS.items():
        networks: list[nn.Module] = [create_detector(DetectorSettings(model_type=model_type, ssl_model=""))]
        if published:
            networks.append(_Published(published, config))
        for work in (step, score):
            rounds = [[milliseconds(work, network, batch_size) for network in networks] for _ in range(repeats + 1)]
            costs = [statistics.median(column) for column in zip(*rounds[1:], strict=True)]  # the first warms up
            ratio = f"{costs[-1] / costs[0]:8.2f}x" if published else ""
            print(f"  {model_type + ', ' + work.__name__:<28}" + "".join(f"{cost:12.0f}" for cost in costs) + ratio)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="aasist: cost of training and scoring")
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="checkout of github.com/clovaai/aasist")
    parser.add_argument("--batch_size", type=int, default=4, metavar="N", help="utterances per batch (default: 4)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds that count (default: 5)")
    typed = parser.parse_args()
    main(typed.published, typed.batch_size, typed.repeats)
