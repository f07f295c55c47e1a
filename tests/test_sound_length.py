"""How long there is something to hear: silence, hiss, an offset and pauses do not count."""

from __future__ import annotations

import numpy as np
import pytest

from utils.audio.sound_length import SoundLength

RATE = 16_000


def noise(seconds: float, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(3).standard_normal(round(seconds * RATE))).astype(np.float32)


@pytest.mark.parametrize(
    ("sound", "seconds", "reason"),
    [
        (np.zeros(RATE, dtype=np.float32), 0.0, "silence"),
        (np.full(RATE, 0.5, dtype=np.float32), 0.0, "a constant offset is no sound"),
        (noise(1.0, 1e-4), 0.0, "hiss of -80 dB"),
        (noise(1.0), 1.0, "noise is sound: speech is not told from it"),
        (noise(1.0, 5e-3), 1.0, "quiet, but all of it alike"),
        (np.concatenate((noise(0.4), noise(2.0, 3e-4))), 0.4, "a word, and the room after it"),
        (np.concatenate((noise(0.3), np.zeros(RATE, dtype=np.float32), noise(0.3))), 0.6, "a pause"),
        (noise(0.05), 0.04, "the last frame of 20 ms is not whole"),
        (noise(0.0), 0.0, "nothing"),
    ],
)
def test_the_length_of_what_can_be_heard(sound: np.ndarray, seconds: float, reason: str) -> None:
    whole, in_pieces = SoundLength(RATE), SoundLength(RATE)
    whole.hear(sound)
    for first in range(0, sound.size, 777):
        in_pieces.hear(sound[first : first + 777])
    assert whole.seconds == pytest.approx(seconds, abs=1e-9), reason
    assert in_pieces.seconds == whole.seconds
