"""A source as vocoders hear it, and a spoof as a file: of its source's length, level and format.

Length: as many samples at the source's rate. Level: the root mean square of all channels, but that no sample exceeds
full scale (or the source's highest sample, where that does): then the spoof is quieter. Format: rate, number of
channels, container and coding, all channels alike. A format that cannot be written, or not twice to the same bytes (Ogg
has a random number in it), becomes 16-bit FLAC.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from utils.audio.reading import Samples, open_audio
from utils.audio.waveforms import SAMPLE_RATE_HZ, Waveform, resampled_pieces

FULL_SCALE = 0.999
_FLAC = "FLAC PCM_16"
_CONTAINERS = ("FLAC", "WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "MP3")
_CODINGS = (
    *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "ALAC_16", "ALAC_24"),
    "MPEG_LAYER_III",
)
_FIRST_BYTES = 512


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


def format_of_spoof(source_format: str, sample_rate_hz: int) -> str:
    """Return the format of the spoofs of a source.

    >>> format_of_spoof("WAV PCM_24", 44_100), format_of_spoof("OGG VORBIS", 44_100)
    ('WAV PCM_24', 'FLAC PCM_16')
    """
    container, _, coding = source_format.partition(" ")
    is_written = container in _CONTAINERS and coding in _CODINGS and soundfile.check_format(container, coding)
    if container == "MP3":  # the rates of MPEG-1, 2 and 2.5
        is_written = is_written and sample_rate_hz in (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
    return source_format if is_written else _FLAC


def suffix_of_spoof(path: Path, source_format: str, sample_rate_hz: int) -> str:
    """Return the suffix of the spoofs of a source: its own, where they have its format."""
    return path.suffix if format_of_spoof(source_format, sample_rate_hz) == source_format else ".flac"


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
    content = _encoded(sound * (gain * lowered), source)
    return Spoof(content, -20 * math.log10(lowered))


def _resampled(made: Waveform, source: Source) -> np.ndarray:
    """Return float64 (samples,) at the source's rate and of its length, by the recipe of the reader (HQ)."""
    sound = made.astype(np.float64)
    if source.sample_rate_hz != SAMPLE_RATE_HZ:
        sound = soxr.resample(sound, SAMPLE_RATE_HZ, source.sample_rate_hz, quality="HQ")
    return np.pad(sound[: source.samples], (0, max(0, source.samples - sound.size)))


def _encoded(sound: np.ndarray, source: Source) -> bytes:
    channels = np.repeat(sound[:, np.newaxis], source.channels, axis=1)
    container, _, coding = format_of_spoof(source.format, source.sample_rate_hz).partition(" ")
    file = io.BytesIO()
    soundfile.write(file, channels, source.sample_rate_hz, format=container, subtype=coding)
    return _without_time(file.getvalue())


def _without_time(content: bytes) -> bytes:
    """Return a file without the time at which it was written: libsndfile puts it into the PEAK chunk of floats."""
    at = content[:_FIRST_BYTES].find(b"PEAK")
    return content if at < 0 else content[: at + 12] + bytes(4) + content[at + 16 :]
