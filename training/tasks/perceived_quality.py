"""PESQ (wide band, ITU-T P.862.2) of a copy of an utterance, by the package `pesq`, which not everybody has."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from utils.audio.waveforms import SAMPLE_RATE_HZ, Waveform
from utils.errors import UserError

Measure = Callable[[Waveform, Waveform], float | None]
"""From the source and its copy, of one length, to a figure; None where there is none for them."""


def pesq_measure() -> Measure | None:
    """Return what measures PESQ, 1.04 to 4.64; None where the package is not installed.

    There is none where it recognises no speech, or not a quarter of a second: which follows from the waveforms alone.
    """
    try:
        package: Any = importlib.import_module("pesq")
    except ImportError:
        return None

    def measure(source: Waveform, copy: Waveform) -> float | None:
        try:
            with np.errstate(divide="ignore", invalid="ignore"):  # of silence
                found = float(package.pesq(SAMPLE_RATE_HZ, source, copy, "wb"))
        except package.OutOfMemoryError as error:
            raise MemoryError("PESQ") from error
        except (package.PesqError, ValueError):
            return None
        return found if math.isfinite(found) else None

    return measure


def required_pesq() -> Measure:
    """Return `pesq_measure`; raises UserError where the package is not installed."""
    measure = pesq_measure()
    if measure is None:
        raise UserError(
            "--metric_discriminator learns to predict PESQ, and the package pesq is not installed: "
            "pip install -r requirements-vocoder.txt (it needs a C compiler)"
        )
    return measure
