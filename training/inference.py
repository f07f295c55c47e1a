"""A trained detector for use from Python: weights, settings and figures of a checkpoint, and no optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from models.build import rebuild_detector
from models.detector import Detector
from training.checkpoints.decision import Decision
from training.checkpoints.record import EpochMetrics, record_from_dict
from training.checkpoints.sealed_file import read_record
from training.checkpoints.weights import load_into, load_weights
from training.options import Options
from training.starting_state import detector_settings
from utils.errors import UserError


@dataclass(frozen=True)
class TrainedDetector:
    """A detector in evaluation mode, the settings it was trained with and the figures of its last complete epoch.

    `decision` has the threshold and the calibration of its validation, None where the file has none.
    """

    detector: Detector
    options: Options
    metrics: EpochMetrics | None
    decision: Decision | None = None


def load_detector(path: Path | str, device: torch.device | str = "cpu") -> TrainedDetector:
    """Return the detector in a checkpoint or best-weights file that bonafide wrote; no pretrained files are needed.

    `trained.detector(waveform)` takes (batch, samples) at 16 kHz and returns log-probabilities (batch, 2), spoof then
    bona fide. Raises UserError where the file is damaged, or does not say what it was trained with.
    """
    file = Path(path)
    weights = load_weights(file)
    stored = read_record(file)
    if stored is None:
        raise UserError(
            f"{path} holds weights and not the settings they were trained with: build the detector yourself and "
            "fill it with training.checkpoints.weights.load_into"
        )
    record = record_from_dict(stored, file, file.stat().st_size)
    detector = rebuild_detector(detector_settings(record.options), weights.payload["front_end_config"])
    load_into(detector, weights)
    return TrainedDetector(detector.to(device).eval(), record.options, record.last, record.decision)
