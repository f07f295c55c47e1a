"""How long something can be heard in a recording: frames that are neither silent nor far below the loudest ones.

This measures level, as active speech level does (ITU-T P.56), and does not know speech from noise. It says whether
there was enough of anything to judge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FRAME_S = 0.02
FLOOR = 1e-3
"""-60 dB of full scale, which the noise of a quiet recording stays below."""
BELOW_LOUDEST = 1e-2
"""40 dB below the loudest frame: the range of speech; what is lower is the room between the words."""


class SoundLength:
    """Hears a recording piece by piece, at its own rate, and says for how many seconds there was sound in it."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._samples_per_frame = max(1, round(FRAME_S * sample_rate_hz))
        self._frame_s = self._samples_per_frame / sample_rate_hz
        self._rest: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._levels: list[NDArray[np.float32]] = []

    def hear(self, piece: NDArray[np.float32]) -> None:
        """Take the next samples `(samples,)`, mono, full scale 1."""
        samples = np.concatenate((self._rest, piece))
        whole = samples.size // self._samples_per_frame * self._samples_per_frame
        # The standard deviation: a constant offset is no sound.
        self._levels.append(samples[:whole].reshape(-1, self._samples_per_frame).std(axis=1))
        self._rest = samples[whole:]

    @property
    def seconds(self) -> float:
        """The total length of the frames with sound; a last frame that is not whole counts for nothing."""
        levels = np.concatenate(self._levels) if self._levels else np.zeros(0)
        if levels.size == 0:
            return 0.0
        return float(np.count_nonzero(levels >= max(FLOOR, BELOW_LOUDEST * float(levels.max())))) * self._frame_s
