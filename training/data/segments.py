"""What a vocoder hears of an utterance: a segment of it at a drawn place, or its beginning, at one level.

As published (jik876/hifi-gan meldataset.py), but that the place is a function of the position: an utterance is brought
to 0.95 of full scale at its highest peak, and a shorter one is filled with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.audio.waveforms import Waveform, fit_length
from utils.seeding import generator_at

PEAK = 0.95
SEGMENT_SAMPLES = 8192


@dataclass(frozen=True)
class SegmentView:
    """What training sees: `SEGMENT_SAMPLES` from a place drawn for the seed, the epoch and the utterance."""

    seed: int

    def __call__(self, waveform: Waveform, epoch: int, utterance: str, visit: int = 0) -> Waveform:
        """Return `(8192,)`, the same for the same seed, epoch, utterance and visit."""
        position: tuple[int | str, ...] = (self.seed, epoch, utterance) + ((visit,) if visit else ())
        waveform, _ = at_peak(waveform)
        start = 0
        if waveform.size > SEGMENT_SAMPLES:
            start = int(generator_at("segment", *position).integers(waveform.size - SEGMENT_SAMPLES + 1))
        segment = waveform[start : start + SEGMENT_SAMPLES]
        return np.pad(segment, (0, SEGMENT_SAMPLES - segment.size))


def beginning_view(waveform: Waveform, epoch: int, utterance: str, visit: int = 0) -> Waveform:  # noqa: ARG001 - a View
    """Return the first `(64600,)` of an utterance, as a detector's validation has them, at the level of training."""
    return fit_length(at_peak(waveform)[0])


def at_peak(waveform: Waveform) -> tuple[Waveform, float]:
    """Return a waveform brought to `PEAK` of full scale, and what it was multiplied with; silence stays as it is.

    >>> at_peak(np.array([0.1, -0.5], dtype=np.float32))
    (array([ 0.19, -0.95], dtype=float32), 1.9)
    """
    highest = float(np.abs(waveform).max(initial=0.0))
    gain = PEAK / highest if highest > np.finfo(np.float32).tiny else 1.0
    return (waveform * np.float32(gain)).astype(np.float32), gain
