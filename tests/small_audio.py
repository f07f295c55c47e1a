"""Writes small real audio files, for the tests of corpora."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile


def write_sound(path: Path, seconds: float = 0.05, rate_hz: int = 16_000) -> Path:
    """Write a tone in the format that the suffix names; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * time), rate_hz)
    return path


def write_sounds(folder: Path, names: Iterable[str]) -> None:
    """Write a tone for each name."""
    for name in names:
        write_sound(folder / name)


def babble(seconds: float, rate_hz: int = 16_000, channels: int = 1) -> np.ndarray:
    """Noise that is dull and sharp in turn, as vowels and consonants are: the least that passes for speech."""
    sharp = np.random.default_rng(7).uniform(-0.5, 0.5, (round(seconds * rate_hz), channels))
    dull = np.stack([np.convolve(one, np.hanning(rate_hz // 400) / 20, mode="same") for one in sharp.T], axis=1)
    is_vowel = np.arange(len(sharp)) * 6 // rate_hz % 2 == 0
    return np.where(is_vowel[:, None], dull, sharp)
