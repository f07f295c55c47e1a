"""Writes audio in the formats whose bytes are the same each time, the same sound given."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import soundfile

_FLAC = "FLAC PCM_16"
_CONTAINERS = ("FLAC", "WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "MP3")
_CODINGS = (
    *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "ALAC_16", "ALAC_24"),
    "MPEG_LAYER_III",
)
_RATES_OF_MP3_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # of MPEG-1, 2 and 2.5
_FIRST_BYTES = 512


def written_format(source_format: str, sample_rate_hz: int) -> str:
    """Return the format that stands for one of a file that was read: itself, or 16-bit FLAC.

    A format that cannot be written, or not twice to the same bytes (Ogg has a random number in it), is FLAC.

    >>> written_format("WAV PCM_24", 44_100), written_format("OGG VORBIS", 44_100)
    ('WAV PCM_24', 'FLAC PCM_16')
    """
    container, _, coding = source_format.partition(" ")
    is_written = container in _CONTAINERS and coding in _CODINGS and soundfile.check_format(container, coding)
    if container == "MP3":
        is_written = is_written and sample_rate_hz in _RATES_OF_MP3_HZ
    return source_format if is_written else _FLAC


def encoded(sound: npt.NDArray[np.float64], sample_rate_hz: int, source_format: str) -> bytes:
    """Return the bytes of a file of `sound` (samples, channels), full scale 1, in `written_format`."""
    container, _, coding = written_format(source_format, sample_rate_hz).partition(" ")
    file = io.BytesIO()
    soundfile.write(file, sound, sample_rate_hz, format=container, subtype=coding)
    return _without_time(file.getvalue())


def _without_time(content: bytes) -> bytes:
    """Return a file without the time at which it was written: libsndfile puts it into the PEAK chunk of floats."""
    at = content[:_FIRST_BYTES].find(b"PEAK")
    return content if at < 0 else content[: at + 12] + bytes(4) + content[at + 16 :]
