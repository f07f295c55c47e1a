"""Makes detectors from their settings: new ones, or empty ones whose weights a checkpoint will supply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models.aasist import Aasist
from models.detector import Detector, DetectorSettings
from models.front_end import SelfSupervisedFrontEnd, load_front_end, rebuild_front_end
from models.g3_heatmap import G3Heatmap
from models.lcnn import Lcnn
from models.one_class import OneClassDetector
from models.sls import Sls
from models.spectrogram import SpectrogramResnet18, SpectrogramSwin
from models.ssl_mean import SslMean

# One entry for each name in models.names: here FRONT_END_TYPES, below RAW_WAVEFORM_TYPES.
DETECTORS: dict[str, Callable[[DetectorSettings, SelfSupervisedFrontEnd], Detector]] = {
    "g3_heatmap": G3Heatmap,
    "sls": Sls,
    "ssl_mean": SslMean,
}
RAW_DETECTORS: dict[str, Callable[[DetectorSettings], Detector]] = {
    "aasist": Aasist,
    "aasist_l": Aasist,
    "lcnn": Lcnn,
    "spectrogram_resnet18": SpectrogramResnet18,
    "spectrogram_swin": SpectrogramSwin,
}


def create_detector(settings: DetectorSettings) -> Detector:
    """Return a new detector whose front-end, if any, has the weights of `settings.ssl_model`; torch draws what is new.

    Raises `UserError` if the weights cannot be had or do not fit.
    """
    if settings.model_type in RAW_DETECTORS:
        return _deciding(RAW_DETECTORS[settings.model_type](settings))
    return _assembled(settings, load_front_end(settings.ssl_model, settings.normalize_waveform))


def rebuild_detector(settings: DetectorSettings, front_end_config: dict[str, Any]) -> Detector:
    """Return a detector of the same shape as the one that `front_end_config` was read from, with random weights.

    Needs neither network nor pretrained files: a checkpoint supplies the weights.
    """
    if settings.model_type in RAW_DETECTORS:
        return _deciding(RAW_DETECTORS[settings.model_type](settings))
    return _assembled(settings, rebuild_front_end(front_end_config, settings.normalize_waveform))


def _assembled(settings: DetectorSettings, front_end: SelfSupervisedFrontEnd) -> Detector:
    if settings.freeze_ssl:
        front_end.freeze()
    return _deciding(DETECTORS[settings.model_type](settings, front_end))


def _deciding(detector: Detector) -> Detector:
    return OneClassDetector(detector) if detector.settings.one_class else detector
