"""What it costs a training on CPUs that glibc gives memory back to the system, and takes it again, at each step.

    OMP_NUM_THREADS=1 python -m benchmarks.kept_memory CORPUS [DETECTOR...]

An epoch of 60 utterances of each detector, as it is and with the environment that `WAYS` has, in turn, three times.
Printed are medians: the processor time of the whole command, of which `in the system` is what the kernel took, and the
most memory that it had. Weights are compared, too: they must have the same bits.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import torch

from benchmarks.measuring import PROGRAM, Cost, machine_text, run_once

ROUNDS = 3
WAYS: Mapping[str, Mapping[str, str]] = {
    "as it is": {},
    "memory kept": {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "9000000000"},
}
DETECTORS = ("lcnn", "spectrogram_resnet18", "aasist_l", "aasist")
SETTINGS = ("--batch_size", "12", "--num_examples", "60", "--num_epochs", "1", "--num_workers", "0", "--device", "cpu")


def trained(detector: str, corpus: str, environment: Mapping[str, str]) -> tuple[Cost, str]:
    """Train once, and return the cost and the SHA-256 of the best weights."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*PROGRAM, "--model_type", detector, "--database_path", corpus, *SETTINGS]
        cost = run_once(command, Path(folder), environment=environment)
        (weights,) = Path(folder).glob("models/*/best_model_*.pth")
        digest = hashlib.sha256()
        for name, tensor in sorted(torch.load(weights, weights_only=True)["model_state_dict"].items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return cost, digest.hexdigest()


def main(corpus: str, *detectors: str) -> None:
    """Train all detectors in both ways, and print what it took."""
    print(machine_text())
    for detector in detectors or DETECTORS:
        costs: dict[str, list[Cost]] = {way: [] for way in WAYS}
        digests = set()
        for _ in range(ROUNDS):
            for way, environment in WAYS.items():
                cost, digest = trained(detector, str(Path(corpus).absolute()), environment)
                costs[way].append(cost)
                digests.add(digest)
        assert len(digests) == 1, f"{detector} has other bits"
        for way, measured in costs.items():
            seconds, system, peak = (
                median(values)
                for values in zip(
                    *((one.cpu_seconds, one.system_seconds, one.peak_mib) for one in measured), strict=True
                )
            )
            print(
                f"{detector:22} {way:12} {seconds:6.1f} s, {system:5.1f} s in the system, {peak:6.0f} MiB", flush=True
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
