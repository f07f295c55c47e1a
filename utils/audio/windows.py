"""The windows of an audio file of any length and rate, read and resampled in pieces: an hour takes a few megabytes.

The windows of a file together hold each of its samples, as `read_waveform` gives them, to the same bits: the resampler
is the same one, and what it gives does not depend on the pieces.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from utils.audio.checking import promised_samples
from utils.audio.sound_length import SoundLength
from utils.audio.waveforms import (
    CROP_SAMPLES,
    NO_LENGTH,
    SAMPLE_RATE_HZ,
    UNKNOWN_FRAMES,
    Resampler,
    Waveform,
    fit_length,
    mixed,
    resampled_length,
    why_unreadable,
)
from utils.errors import UserError

# Far beyond any recorder: a header that says more is false, and a window of it could fill memory.
_HIGHEST_RATE_HZ = 10_000_000


class UnreadableAudioError(UserError):
    """An audio file that gives no sound; `reason` says why without naming it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be scored: {reason}")
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Window:
    """A `waveform` (64600,) at 16 kHz that begins at sample `start` of the resampled file."""

    start: int
    waveform: Waveform

    @property
    def start_s(self) -> float:
        """Where it begins, in seconds."""
        return self.start / SAMPLE_RATE_HZ


class WindowedAudio:
    """The windows of a file, one after the other; what the file turned out to be is known when they are through.

    Windows do not overlap, but for the last one, which is moved to the end of the file: none of a longer file holds
    anything repeated. A shorter file is one window, repeated as in training (`fit_length`).

    `frames` counts what was decoded of each channel, `promised` is what the header says, `peak` the largest magnitude.
    `sound_s` says for how long something can be heard in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = 0
        self.promised = 0
        self.sample_rate_hz = SAMPLE_RATE_HZ
        self.peak = 0.0
        self._sound = SoundLength(SAMPLE_RATE_HZ)

    @property
    def sound_s(self) -> float:
        """How many seconds of what was read so far are neither silent nor far below the rest."""
        return self._sound.seconds

    @property
    def seconds(self) -> float:
        """How long what was read so far is."""
        return self.frames / self.sample_rate_hz

    def __iter__(self) -> Iterator[Window]:
        """Read the file from its beginning; raises UnreadableAudioError, after the windows before the fault."""
        try:
            yield from _windows(self._pieces())
        except (soundfile.SoundFileError, OSError) as error:
            raise UnreadableAudioError(self.path, f"cannot be read: {why_unreadable(self.path, error)}") from error

    def _pieces(self) -> Iterator[Waveform]:
        """Yield the sound at 16 kHz, mono, in pieces of about a window each."""
        with _opened(self.path) as file:
            self.sample_rate_hz, self.frames, self.peak = int(file.samplerate), 0, 0.0
            self._sound = SoundLength(self.sample_rate_hz)
            if self.sample_rate_hz > _HIGHEST_RATE_HZ:
                raise UnreadableAudioError(self.path, f"a sample rate of {self.sample_rate_hz:,} Hz is none of audio")
            resampler, size = Resampler(self.sample_rate_hz), CROP_SAMPLES * self.sample_rate_hz // SAMPLE_RATE_HZ
            for piece in self._mono_pieces(file, max(1, size)):
                yield resampler.take(piece)
            yield resampler.end()
            self.promised = promised_samples(file)
        if not self.frames:
            raise UnreadableAudioError(self.path, "it holds no samples")

    def _mono_pieces(self, file: soundfile.SoundFile, size: int) -> Iterator[Waveform]:
        """Yield `size` samples each at the file's own rate, fewer at its end, which may be none."""
        while True:
            mono = mixed(file.read(size, dtype="float32", always_2d=True))
            finite = np.isfinite(mono)
            if not finite.all():
                first = int(np.flatnonzero(~finite)[0])
                raise UnreadableAudioError(self.path, f"sample {self.frames + first:,} is {mono[first]}")
            self.frames += mono.size
            self.peak = max(self.peak, float(np.abs(mono).max(initial=0)))
            self._sound.hear(mono)
            yield mono
            if mono.size < size:
                return


def expected_windows(path: Path) -> int:
    """Return how many windows a file has if its header is right, 1 if it has none that can be read."""
    try:
        with _opened(path) as file:
            samples = resampled_length(int(file.frames), int(file.samplerate))
    except (soundfile.SoundFileError, OSError, UnreadableAudioError):
        return 1
    return max(1, -(-samples // CROP_SAMPLES))


def _opened(path: Path) -> soundfile.SoundFile:
    if path.is_dir():
        raise UnreadableAudioError(path, "the folder holds no audio file that can be read")
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UnreadableAudioError(path, "it is no regular file")
    if path.exists() and not os.access(path, os.R_OK):
        raise UnreadableAudioError(path, "this user may not read it")
    if path.suffix.lower() == ".raw":  # soundfile goes by the name, and asks its caller for rate and channels
        raise UnreadableAudioError(path, "raw samples do not say their rate and channels: give it a header, as WAV")
    file = soundfile.SoundFile(os.fsencode(path))
    if file.frames >= UNKNOWN_FRAMES:
        file.close()
        raise UnreadableAudioError(path, NO_LENGTH)
    return file


def _windows(pieces: Iterable[Waveform]) -> Iterator[Window]:
    """Cut a sound that comes in pieces of any size into windows."""
    before, rest, start = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32), 0
    for piece in pieces:
        rest = np.concatenate((rest, piece))
        while rest.size >= CROP_SAMPLES:
            before, rest = rest[:CROP_SAMPLES], rest[CROP_SAMPLES:]
            yield Window(start, before)
            start += CROP_SAMPLES
    if rest.size and before.size:
        yield Window(start - CROP_SAMPLES + rest.size, np.concatenate((before[rest.size :], rest)))
    elif rest.size:
        yield Window(0, fit_length(rest))
