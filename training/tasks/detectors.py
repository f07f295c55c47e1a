"""Detectors from settings and files: what shapes one, one to fill, and a trained one without its optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from models.build import create_detector, rebuild_detector
from models.detector import Detector, DetectorSettings
from training.checkpoints.decision import Decision
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.verified_file import VerifiedFile, open_verified
from training.checkpoints.weights import Weights, load_into, load_weights
from training.settings.options import Options
from training.settings.recipe import ONE_CLASS_LOSS
from utils.errors import UserError
from utils.scores.error_curve import ScoredTrials


def detector_settings(options: Options) -> DetectorSettings:
    """Return the part of the options that shapes the detector."""
    return DetectorSettings(
        model_type=options.model_type,
        group_size=options.group_size,
        use_contrastive=options.use_contrastive,
        ssl_model=options.ssl_model,
        temporal_bias=options.temporal_bias,
        normalize_waveform=options.normalize_waveform,
        freeze_ssl=options.freeze_ssl,
        one_class=options.loss == ONE_CLASS_LOSS,
    )


def empty_detector(settings: DetectorSettings, weights: Weights) -> Detector:
    """Return a detector to fill; pretrained files are needed only where the weights' file does not say its shape."""
    stored = weights.payload.get("args")
    trained_with = stored.get("ssl_model") if isinstance(stored, Mapping) else None
    if trained_with == settings.ssl_model and "front_end_config" in weights.payload:
        return rebuild_detector(settings, weights.payload["front_end_config"])
    return create_detector(settings)


@dataclass(frozen=True)
class DetectionMetrics:
    """The figures of one completed epoch. Losses are means, EERs and accuracy are in percent."""

    epoch: int
    step: int
    train_loss: float
    train_eer: float
    val_loss: float
    val_acc: float
    val_eer: float
    learning_rate: float


@dataclass(frozen=True)
class TrainedDetector:
    """A detector in evaluation mode, the settings it was trained with and the figures of its last complete epoch.

    `decision` has the calibration that its validation gave and where the verdict turns, None where the file has none.
    `validation` are the scores that it came from, in files that keep them: whole checkpoints.
    """

    detector: Detector
    options: Options
    metrics: DetectionMetrics | None
    decision: Decision | None = None
    validation: ScoredTrials | None = None


def load_detector(path: Path | str, device: torch.device | str = "cpu") -> TrainedDetector:
    """Return the detector in a checkpoint or best-weights file that bonafide wrote; no pretrained files are needed.

    `trained.detector(waveform)` takes (batch, samples) at 16 kHz and returns log-probabilities (batch, 2), spoof then
    bona fide. Raises UserError where the file is damaged, or does not say what it was trained with.
    """
    return detector_in(open_verified(Path(path)), device)


def detector_in(opened: VerifiedFile, device: torch.device | str = "cpu") -> TrainedDetector:
    """Return the detector in a verified file, as `load_detector` does; the file is loaded by that."""
    record = opened.record()
    if record is None:
        raise UserError(
            f"{opened.path} holds weights and not the settings they were trained with: build the detector yourself and "
            "fill it with training.checkpoints.weights.load_into"
        )
    return trained_detector(record, load_weights(opened), device)


def trained_detector(record: CheckpointRecord, weights: Weights, device: torch.device | str) -> TrainedDetector:
    """Return the detector that a record describes, with these weights, which came from a file of ours."""
    detector = rebuild_detector(detector_settings(record.options), weights.payload["front_end_config"])
    load_into(detector, weights)
    metrics = DetectionMetrics(**record.last.as_dict()) if record.last else None
    validation = _validation_in(weights, record.decision)
    return TrainedDetector(detector.to(device).eval(), record.options, metrics, record.decision, validation)


def _validation_in(weights: Weights, decision: Decision | None) -> ScoredTrials | None:
    stored = weights.payload.get("last_validation")
    if not decision or not stored or stored["step"] != decision.step:
        return None
    return ScoredTrials.of(stored["scores"].numpy(), stored["is_bona_fide"].numpy())
