"""The public import: a trained detector for use from Python, `from training.inference import load_detector`."""

from __future__ import annotations

from training.tasks.detectors import TrainedDetector, load_detector

__all__ = ["TrainedDetector", "load_detector"]
