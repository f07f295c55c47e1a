"""TorchScript: the detector as torch traced it, for programs that have torch (C++ too) and not this source.

torch calls tracing deprecated since 2.14 and says that it may break from Python 3.14 on; ONNX is what lasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from training.export.checking import noise
from training.export.quiet import quiet
from training.export.scored_detector import Score, ScoredDetector
from utils.audio.waveforms import CROP_SAMPLES


def trace(detector: ScoredDetector) -> torch.jit.ScriptModule:
    """Return the detector traced on two utterances of 64,600 samples; what depends on their length may be baked in."""
    with torch.no_grad(), quiet():
        traced = torch.jit.trace(detector, (noise(2, CROP_SAMPLES),), check_trace=False)  # type: ignore[no-untyped-call]
    return cast(torch.jit.ScriptModule, traced)


def write(traced: torch.jit.ScriptModule, metadata: Mapping[str, str], file: BinaryIO) -> None:
    """Write a traced detector, each of `metadata` as an extra file of that name in the archive."""
    with quiet():
        torch.jit.save(traced, file, _extra_files={name: value.encode() for name, value in metadata.items()})


def open_file(path: Path, names: Mapping[str, str]) -> tuple[Score, dict[str, str]]:
    """Return the detector in a file on the CPU, and what it holds of the metadata that `names` names."""
    found: dict[str, Any] = dict.fromkeys(names, "")
    with quiet():
        traced = torch.jit.load(path, map_location="cpu", _extra_files=found)  # type: ignore[no-untyped-call]

    def score(waveform: Tensor) -> tuple[Tensor, Tensor]:
        log_probabilities, log_odds = traced(waveform)
        return log_probabilities, log_odds

    return score, {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}
