"""Waveforms: any FLAC or WAV file as 16 kHz mono float32, cut or repeat-padded to one length."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from utils.errors import UserError

SAMPLE_RATE_HZ = 16_000
CROP_SAMPLES = 64_600
"""What the detectors of this field look at: 4.0375 s (clovaai/aasist data_utils.py, SSL_Anti-spoofing)."""

UNKNOWN_FRAMES = 2**62
"""libsndfile gives at least so many for a FLAC file without a length, and cannot read its end."""
NO_LENGTH = (
    "its header does not say how long it is, as where a program wrote to a pipe: write it anew, with flac or ffmpeg"
)

Waveform = npt.NDArray[np.float32]


def read_waveform(path: Path) -> Waveform:
    """Return the sound of a FLAC or WAV file of any rate and channel count as float32 `(samples,)`, 16 kHz mono.

    Full scale is 1. Channels are averaged; other rates are resampled as `librosa.load(sr=16000)` does. Raises
    UserError, naming the file, where it cannot be read, holds no sample, or holds one that is NaN or infinite.
    """
    samples, sample_rate_hz = _decode(path)
    if samples.shape[0] == 0:
        raise UserError(f"{path}: the audio file holds no samples: copy it again or take it out of the protocol")
    mono = mixed(samples)
    if not np.isfinite(mono).all():
        first = int(np.flatnonzero(~np.isfinite(mono))[0])
        raise UserError(
            f"{path}: audio samples must be finite, found {mono[first]} at sample {first} (counted from 0): "
            "make the file again or take it out of the protocol"
        )
    return np.ascontiguousarray(resampled(mono, sample_rate_hz))


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


def mixed(samples: Waveform) -> Waveform:
    """Return the mean of the channels of `(frames, channels)` as `(frames,)`."""
    return samples[:, 0] if samples.shape[1] == 1 else np.asarray(samples.mean(axis=1), dtype=np.float32)


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
        self._stream = soxr.ResampleStream(sample_rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
        self._taken = self._given = 0

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


def resampled(mono: Waveform, sample_rate_hz: int) -> Waveform:
    """Return `(samples,)` at 16 kHz; at 16 kHz it is the same array. See `Resampler`."""
    if sample_rate_hz == SAMPLE_RATE_HZ:
        return mono
    resampler = Resampler(sample_rate_hz)
    return np.concatenate((resampler.take(mono), resampler.end()))


def _decode(path: Path) -> tuple[Waveform, int]:
    """Return `(frames, channels)` and the file's own rate in Hz; libsndfile reports cut or damaged FLAC."""
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            if file.frames >= UNKNOWN_FRAMES:
                raise UserError(f"{path}: the audio file cannot be read ({NO_LENGTH})")
            samples = file.read(dtype="float32", always_2d=True)
            sample_rate_hz = int(file.samplerate)
    except (soundfile.SoundFileError, OSError) as error:
        reason = why_unreadable(path, error)
        raise UserError(f"{path}: the audio file cannot be read ({reason}): copy it again, as FLAC or WAV") from error
    return samples, sample_rate_hz


def why_unreadable(path: Path, error: Exception) -> str:
    """Return in a few words why libsndfile or the system refused a file."""
    if not path.exists():
        return "there is no such file"
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    return str(getattr(error, "error_string", error)).rstrip(".").removeprefix("Error : ")
