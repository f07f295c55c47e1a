"""A source as vocoders hear it, and a spoof as a file: of its source's length, level and format.

Length: as many samples at the source's rate. Level: the root mean square of all channels, but that no sample exceeds
full scale (or the source's highest sample, where that does): then the spoof is quieter. Format: rate, number of
channels, container and coding, all channels alike. A format that cannot be written, or not twice to the same bytes (Ogg
has a random number in it), becomes 16-bit FLAC.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from utils.audio.finding import FLAC_SUFFIX
from utils.audio.reading import Samples, open_audio
from utils.audio.waveforms import SAMPLE_RATE_HZ, Waveform, resampled_pieces
from utils.audio.writing import encoded, written_format

FULL_SCALE = 0.999


@dataclass(frozen=True, eq=False)
class Source:
    """What was read of a bona fide file: `waveform` (samples,) at 16 kHz, mono, and what its spoofs must be like.

    `samples` are those of each channel at `sample_rate_hz`; `level` is the root mean square of all channels and `peak`
    the largest magnitude, both with full scale 1. `format` names container and coding.
    """

    path: Path
    waveform: Waveform
    samples: int
    sample_rate_hz: int
    channels: int
    format: str
    level: float
    peak: float


@dataclass(frozen=True)
class Spoof:
    """The bytes of a spoof's file. `quieter_db` is how far it is below its source's level, so that it does not clip."""

    content: bytes
    quieter_db: float


class NoSoundError(Exception):
    """A vocoder gave something that is no sound; the text says what."""


def read_source(path: Path) -> Source:
    """Read a bona fide file as training hears it; raises UnreadableAudioError."""
    squares, peak = 0.0, 0.0
    with open_audio(path) as file:

        def measured() -> Iterator[Samples]:
            nonlocal squares, peak
            for block in file.blocks():
                flat = block.reshape(-1).astype(np.float64)
                squares += float(np.dot(flat, flat))
                peak = max(peak, float(np.abs(flat).max(initial=0.0)))
                yield block

        waveform = np.concatenate(list(resampled_pieces(measured(), file.sample_rate_hz)))
        level = math.sqrt(squares / (file.samples * file.channels))
        return Source(
            path, waveform, file.samples, file.sample_rate_hz, file.channels, file.format, level=level, peak=peak
        )


def suffix_of_spoof(path: Path, source_format: str, sample_rate_hz: int) -> str:
    """Return the suffix of the spoofs of a source: its own, where they have its format."""
    return path.suffix if written_format(source_format, sample_rate_hz) == source_format else FLAC_SUFFIX


def spoof_of(source: Source, made: Waveform) -> Spoof:
    """Return the file of what a vocoder made, (samples,) at 16 kHz, of `source`; raises NoSoundError."""
    if not np.isfinite(made).all():
        raise NoSoundError(f"sample {int(np.flatnonzero(~np.isfinite(made))[0]):,} is not finite")
    sound = _resampled(made, source)
    level = math.sqrt(float(np.dot(sound, sound)) / sound.size)
    if source.level and not level:
        raise NoSoundError("every sample is 0")
    gain = source.level / level if level else 0.0
    highest, ceiling = gain * float(np.abs(sound).max()), max(FULL_SCALE, source.peak)
    lowered = min(1.0, ceiling / highest) if highest else 1.0
    channels = np.repeat((sound * (gain * lowered))[:, np.newaxis], source.channels, axis=1)
    content = encoded(channels, source.sample_rate_hz, source.format)
    return Spoof(content, -20 * math.log10(lowered))


def _resampled(made: Waveform, source: Source) -> np.ndarray:
    """Return float64 (samples,) at the source's rate and of its length, by the recipe of the reader (HQ)."""
    sound = made.astype(np.float64)
    if source.sample_rate_hz != SAMPLE_RATE_HZ:
        sound = soxr.resample(sound, SAMPLE_RATE_HZ, source.sample_rate_hz, quality="HQ")
    return np.pad(sound[: source.samples], (0, max(0, source.samples - sound.size)))
