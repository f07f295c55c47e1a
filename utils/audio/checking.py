"""Listens to a whole audio file to tell whether training could, and what is in it."""

from __future__ import annotations

import enum
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from utils.audio.waveforms import CROP_SAMPLES, SAMPLE_RATE_HZ, why_unreadable

_FRAMES_AT_ONCE = 2**20
_FLOATING_SUBTYPES = ("FLOAT", "DOUBLE")
_SILENCE_DB = -120.0
# What libsndfile notes of a RIFF header that promises more bytes than follow.
_CUT_WAV = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_NO_LENGTH_BYTES = 0x7FFFF000  # a program that wrote to a pipe leaves 2 or 4 GB as the length


class AudioFault(enum.Enum):
    """What can be wrong with an audio file, in the words of a report."""

    UNREADABLE = "unreadable audio files"  # training stops there
    CUT = "audio files cut short"  # training takes what is left


@dataclass(frozen=True, slots=True)
class CheckedAudio:
    """What a file holds: decoded `samples` of each channel, 0 where it is unreadable, and what is wrong with it.

    `format` names container and coding, as `FLAC PCM_16`. `level_db` is the root mean square and `peak_db` the largest
    magnitude of all channels, in dB of full scale, not below -120.
    """

    samples: int = 0
    sample_rate_hz: int = 0
    channels: int = 0
    fault: AudioFault | None = None
    reason: str = ""
    format: str = ""
    level_db: float = _SILENCE_DB
    peak_db: float = _SILENCE_DB

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.samples / self.sample_rate_hz if self.sample_rate_hz else 0.0

    @property
    def is_longer_than_the_crop(self) -> bool:
        """Whether a detector sees only a part of it: more than 64,600 samples at 16 kHz."""
        return self.seconds * SAMPLE_RATE_HZ > CROP_SAMPLES


def check_audio(path: Path) -> CheckedAudio:
    """Decode a file from its beginning to its end; nothing is raised for what is wrong with it.

    A FLAC file that is cut cannot be decoded. A cut WAV or MP3 file can, but holds less than its header says. A cut Ogg
    file is not told from a short one.
    """
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            samples, is_finite, mean_square, peak = _decode(file)
            facts = CheckedAudio(
                samples,
                int(file.samplerate),
                int(file.channels),
                format=f"{file.format} {file.subtype}",
                level_db=_decibels(math.sqrt(mean_square)) if is_finite else _SILENCE_DB,
                peak_db=_decibels(peak) if is_finite else _SILENCE_DB,
            )
            promised = promised_samples(file)
    except (soundfile.SoundFileError, OSError) as error:
        return CheckedAudio(fault=AudioFault.UNREADABLE, reason=why_unreadable(path, error))
    if not samples:
        return CheckedAudio(fault=AudioFault.UNREADABLE, reason="it holds no samples")
    if not is_finite:
        return CheckedAudio(fault=AudioFault.UNREADABLE, reason="it holds samples that are not finite")
    if promised > samples:
        reason = f"{samples:,} samples, its header says {promised:,}"
        return replace(facts, fault=AudioFault.CUT, reason=reason)
    return facts


def _decode(file: soundfile.SoundFile) -> tuple[int, bool, float, float]:
    """Return the samples of each channel, whether all are finite, their mean square, and the largest magnitude."""
    samples, is_finite, square, peak = 0, True, 0.0, 0.0
    while True:
        block = file.read(_FRAMES_AT_ONCE, dtype="float32", always_2d=True)
        samples += len(block)
        flat = block.reshape(-1)
        if file.subtype in _FLOATING_SUBTYPES:
            is_finite = is_finite and bool(np.isfinite(flat).all())
        if is_finite and flat.size:
            square += float(np.dot(flat, flat))
            peak = max(peak, float(flat.max()), -float(flat.min()))
        if len(block) < _FRAMES_AT_ONCE:
            return samples, is_finite, square / max(1, samples * int(file.channels)), peak


def _decibels(amplitude: float) -> float:
    return max(_SILENCE_DB, 20 * math.log10(amplitude)) if amplitude else _SILENCE_DB


def promised_samples(file: soundfile.SoundFile) -> int:
    """Return how many samples of each channel the header says there are."""
    cut = _CUT_WAV.search(file.extra_info) if file.format == "WAV" else None
    if cut and int(cut[2]) < int(cut[1]) < _NO_LENGTH_BYTES and file.frames:
        return int(cut[1]) * int(file.frames) // int(cut[2])
    return int(file.frames)
