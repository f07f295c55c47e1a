"""Listens to a whole audio file to tell whether training could, and what is in it."""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from utils.audio.waveforms import CROP_SAMPLES, SAMPLE_RATE_HZ, why_unreadable

_FRAMES_AT_ONCE = 2**20
_FLOATING_SUBTYPES = ("FLOAT", "DOUBLE")
# What libsndfile notes of a RIFF header that promises more bytes than follow.
_CUT_WAV = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_NO_LENGTH_BYTES = 0x7FFFF000  # a program that wrote to a pipe leaves 2 or 4 GB as the length


class AudioFault(enum.Enum):
    """What can be wrong with an audio file, in the words of a report."""

    UNREADABLE = "unreadable audio files"  # training stops there
    CUT = "audio files cut short"  # training takes what is left


@dataclass(frozen=True, slots=True)
class CheckedAudio:
    """What a file holds: decoded `samples` of each channel, 0 where it is unreadable, and what is wrong with it."""

    samples: int = 0
    sample_rate_hz: int = 0
    channels: int = 0
    fault: AudioFault | None = None
    reason: str = ""

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
            samples, is_finite = _decode(file)
            facts = CheckedAudio(samples, int(file.samplerate), int(file.channels))
            promised = promised_samples(file)
    except (soundfile.SoundFileError, OSError) as error:
        return CheckedAudio(fault=AudioFault.UNREADABLE, reason=why_unreadable(path, error))
    if not samples:
        return CheckedAudio(fault=AudioFault.UNREADABLE, reason="it holds no samples")
    if not is_finite:
        return CheckedAudio(fault=AudioFault.UNREADABLE, reason="it holds samples that are not finite")
    if promised > samples:
        reason = f"{samples:,} samples, its header says {promised:,}"
        return CheckedAudio(samples, facts.sample_rate_hz, facts.channels, AudioFault.CUT, reason)
    return facts


def _decode(file: soundfile.SoundFile) -> tuple[int, bool]:
    """Return how many samples of each channel there are, and whether all of them are finite."""
    samples, is_finite = 0, True
    while True:
        block = file.read(_FRAMES_AT_ONCE, dtype="float32", always_2d=True)
        samples += len(block)
        if file.subtype in _FLOATING_SUBTYPES:
            is_finite = is_finite and bool(np.isfinite(block).all())
        if len(block) < _FRAMES_AT_ONCE:
            return samples, is_finite


def promised_samples(file: soundfile.SoundFile) -> int:
    """Return how many samples of each channel the header says there are."""
    cut = _CUT_WAV.search(file.extra_info) if file.format == "WAV" else None
    if cut and int(cut[2]) < int(cut[1]) < _NO_LENGTH_BYTES and file.frames:
        return int(cut[1]) * int(file.frames) // int(cut[2])
    return int(file.frames)
