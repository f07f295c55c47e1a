"""Listens to a whole audio file to tell whether training could, and what is in it."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.audio.complaints import alone
from utils.audio.reading import AudioFile, UnreadableAudioError, mixed, open_audio
from utils.audio.waveforms import CROP_SAMPLES, SAMPLE_RATE_HZ

_SILENCE_DB = -120.0
_LOUDEST = 8.0
"""What no sound in the scale of 1 gets to: 18 dB above it. Lossy formats go over by a few dB."""


class AudioFault(enum.Enum):
    """What can be wrong with an audio file, in the words of a report; training stops at the first of them alone."""

    UNREADABLE = "unreadable audio files"
    CUT = "audio files cut short"  # training takes what is left
    LONGER = "audio files with more in them than their header says"  # training takes what the header says
    DAMAGED = "audio files that are damaged within"  # training takes what the decoder makes of them
    LOUD = "audio files far above full scale"  # training takes the samples as they are
    SILENT = "silent audio files"


@dataclass(frozen=True, slots=True)
class CheckedAudio:
    """What a file holds: decoded `samples` of each channel, 0 where it is unreadable, and what is wrong with it.

    `format` names container and coding, as `FLAC PCM_16`. `level_db` is the root mean square and `peak_db` the largest
    magnitude of the mean of the channels, in dB of full scale, not below -120.
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
    file is not told from a short one. May be called from several threads at once.
    """
    try:
        checked = _listen_to(path)
        if checked.fault is AudioFault.DAMAGED:
            with alone():  # what was heard may be about the file of another thread
                checked = _listen_to(path)
    except UnreadableAudioError as error:
        return CheckedAudio(fault=AudioFault.UNREADABLE, reason=error.reason)
    return checked


def _listen_to(path: Path) -> CheckedAudio:
    with open_audio(path) as file:
        square, peak = 0.0, 0.0
        for block in file.blocks():
            flat = mixed(block)
            loudest = max(float(flat.max()), -float(flat.min()))
            peak = max(peak, loudest)
            if loudest > _LOUDEST:  # float32 ends at 3e38
                flat = flat.astype(np.float64)
            square += float(np.dot(flat, flat))
        fault, reason = doubt_about(file, peak) or (None, "")
        return CheckedAudio(
            file.samples,
            file.sample_rate_hz,
            file.channels,
            fault,
            reason,
            file.format,
            level_db=_decibels(math.sqrt(square / file.samples)),
            peak_db=_decibels(peak),
        )


def doubt_about(file: AudioFile, peak: float) -> tuple[AudioFault, str] | None:
    """Return the first thing that a person should know of a file that was read to its end, None for nothing.

    `peak` is the largest magnitude of the mean of its channels, which is what a detector hears.
    """
    if file.promised > file.samples:
        return AudioFault.CUT, f"{file.samples:,} samples, its header says {file.promised:,}"
    if file.unexplained_bytes:
        said = "its header says" if file.promised else "no header says how long it is: the decoder gave"
        reason = f"{said} {file.samples:,} samples, and {file.unexplained_bytes:,} bytes follow them"
        return AudioFault.LONGER, reason
    if file.complaint:
        return AudioFault.DAMAGED, f"the decoder says: {file.complaint}"
    if peak > _LOUDEST:
        return AudioFault.LOUD, f"a peak of {int(peak):,} where full scale is 1"
    return None if peak else (AudioFault.SILENT, "every sample is 0")


def _decibels(amplitude: float) -> float:
    return max(_SILENCE_DB, 20 * math.log10(amplitude)) if amplitude else _SILENCE_DB
