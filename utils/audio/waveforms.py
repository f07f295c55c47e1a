"""Waveforms: any audio file as 16 kHz mono float32, cut or repeat-padded to one length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from utils.audio.reading import mixed, open_audio

SAMPLE_RATE_HZ = 16_000
CROP_SAMPLES = 64_600
"""What the detectors of this field look at: 4.0375 s (clovaai/aasist data_utils.py, SSL_Anti-spoofing)."""

Waveform = npt.NDArray[np.float32]


def read_waveform(path: Path) -> Waveform:
    """Return the sound of an audio file of any rate and channel count as float32 `(samples,)`, 16 kHz mono.

    Full scale is 1. Channels are averaged; other rates are resampled as `librosa.load(sr=16000)` does. Raises
    UnreadableAudioError as `open_audio` and its blocks do.
    """
    with open_audio(path) as file:
        pieces = [piece for piece in resampled_pieces(file.blocks(), file.sample_rate_hz) if piece.size]
    return np.ascontiguousarray(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))


def fit_length(waveform: Waveform, crop_samples: int = CROP_SAMPLES, start: int = 0) -> Waveform:
    """Return exactly `crop_samples` samples of `waveform`, from `start` on; a shorter one is repeated until it fills.

    Repeating is how the field pads (clovaai/aasist data_utils.py). Raises ValueError for an empty waveform and for a
    start past the last full crop.

    >>> fit_length(np.array([1, 2, 3], dtype=np.float32), crop_samples=7)
    array([1., 2., 3., 1., 2., 3., 1.], dtype=float32)
    """
    if waveform.size == 0:
        raise ValueError("an empty waveform cannot be repeated")
    last_start = max(0, waveform.size - crop_samples)
    if not 0 <= start <= last_start:
        raise ValueError(f"start must be from 0 to {last_start}, found {start}")
    return np.resize(waveform[start:], crop_samples)


def resampled_length(samples: int, sample_rate_hz: int) -> int:
    """Return how many samples at 16 kHz so many at another rate become: librosa's formula, in its arithmetic.

    >>> resampled_length(64_600, 44_100), resampled_length(64_600, 16_000)
    (23438, 64600)
    """
    return math.ceil(samples * (SAMPLE_RATE_HZ / sample_rate_hz))


class Resampler:
    """Brings a mono sound to 16 kHz in pieces of any size, whose concatenation does not depend on where it was cut.

    By soxr's HQ recipe, with which `librosa.load(sr=16000)` reads and with it the field: a linear-phase filter without
    delay, whose stop band begins at 8 kHz and lies below -100 dB. As there, the end is filled with zeros to the length
    of `resampled_length`. A sound at 16 kHz passes through as it is.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._taken = self._given = 0
        if sample_rate_hz != SAMPLE_RATE_HZ:
            self._stream = soxr.ResampleStream(sample_rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")

    def take(self, piece: Waveform) -> Waveform:
        """Return what can be told after this piece, which may be nothing yet."""
        if self._rate_hz == SAMPLE_RATE_HZ:
            return piece
        self._taken += piece.size
        found: Waveform = self._stream.resample_chunk(piece)
        self._given += found.size
        return found

    def end(self) -> Waveform:
        """Return the rest, after the last piece; nothing may follow."""
        if self._rate_hz == SAMPLE_RATE_HZ:
            return np.zeros(0, dtype=np.float32)
        rest: Waveform = self._stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
        wanted = resampled_length(self._taken, self._rate_hz) - self._given
        return np.pad(rest[:wanted], (0, max(0, wanted - rest.size)))


def resampled_pieces(blocks: Iterable[Waveform], sample_rate_hz: int) -> Iterator[Waveform]:
    """Yield blocks `(frames, channels)` of any rate as pieces `(samples,)` at 16 kHz, the mean of the channels."""
    resampler = Resampler(sample_rate_hz)
    for block in blocks:
        yield resampler.take(mixed(block))
    yield resampler.end()
