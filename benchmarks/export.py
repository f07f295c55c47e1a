"""How far exported files are from the detectors that they were made from, and what they cost to run.

    OMP_NUM_THREADS=1 python -m benchmarks.export [--repeats N] [--model_types NAME ...]

Every detector with random weights, those with a front-end on `compact`: what a file computes does not depend on what
was learned. Differences are the greatest of any log-probability or score, on noise, in batches of 1 and 3. Times are
wall times of one utterance of 64,600 samples on one thread, torch and the file turn by turn, medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import torch

from benchmarks.measuring import machine_text
from models.build import create_detector
from models.detector import DetectorSettings
from models.names import COMPACT, DETECTOR_TYPES, FRONT_END_TYPES
from training.export import onnx_file, torchscript_file
from training.export.checking import differences, random_cases, takes_any_length
from training.export.exportable import Score
from training.export.scored_detector import ScoredDetector, noise
from utils.audio.waveforms import CROP_SAMPLES
from utils.terminal_text import bytes_text


def onnx(detector: ScoredDetector, path: Path) -> tuple[Score, bool]:
    """Write a detector as ONNX and open it again; return also whether it takes any length."""
    model, any_length = onnx_file.convert(detector)
    with path.open("wb") as file:
        onnx_file.write(model, {}, file)
    return onnx_file.open_file(path, threads=1)[0], any_length


def torchscript(detector: ScoredDetector, path: Path) -> tuple[Score, bool]:
    """Write a detector as TorchScript and open it again; return also whether it takes any length."""
    traced = torchscript_file.trace(detector)
    with path.open("wb") as file:
        torchscript_file.write(traced, {}, file)
    return torchscript_file.open_file(path, {})[0], takes_any_length(detector.taken, detector, traced)


def milliseconds(score: Score) -> float:
    """Return the wall time of one utterance."""
    waveform = noise(1, CROP_SAMPLES)
    before = time.perf_counter()
    with torch.inference_mode():
        score(waveform)
    return (time.perf_counter() - before) * 1e3


def main(repeats: int, model_types: Sequence[str]) -> None:
    """Export every detector in both formats and print a line for each."""
    print(f"{machine_text()}; onnxruntime {onnxruntime.__version__}")
    print(f"1 utterance, 1 thread, median of {repeats}")
    print(
        f"{'detector':<22}{'format':<13}{'difference':>10}{'size':>10}{'length':>8}{'file':>10}{'torch':>10}{'ratio':>8}"
    )
    for model_type in model_types:
        torch.manual_seed(1)
        ssl_model = COMPACT if model_type in FRONT_END_TYPES else ""
        detector = ScoredDetector(create_detector(DetectorSettings(model_type=model_type, ssl_model=ssl_model))).eval()
        for export in (onnx, torchscript):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "detector")
                score, any_length = export(detector, path)
                size = path.stat().st_size
                greatest = max(
                    found.greatest for found in differences(detector, score, random_cases(detector.taken, any_length))
                )
                rounds = [(milliseconds(score), milliseconds(detector)) for _ in range(repeats + 2)][2:]
            ours, torchs = (statistics.median(times) for times in zip(*rounds, strict=True))
            print(
                f"{model_type:<22}{export.__name__:<13}{greatest:>10.1e}{bytes_text(size):>10}"
                f"{'any' if any_length else 'fixed':>8}{ours:>7.0f} ms{torchs:>7.0f} ms{torchs / ours:>7.2f}x",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--model_types", nargs="+", choices=DETECTOR_TYPES, default=DETECTOR_TYPES)
    typed = parser.parse_args()
    torch.set_num_threads(1)
    main(typed.repeats, typed.model_types)
