"""The windows of an audio file of any length and rate, read and resampled in pieces: an hour takes a few megabytes.

The windows of a file together hold each of its samples, as `read_waveform` gives them, to the same bits: the resampler
is the same one, and what it gives does not depend on the pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.audio.checking import AudioFault, doubt_about
from utils.audio.finding import needs_ffmpeg
from utils.audio.reading import Samples, UnreadableAudioError, mixed, open_audio
from utils.audio.speech_length import SpeechLength
from utils.audio.waveforms import (
    CROP_SAMPLES,
    SAMPLE_RATE_HZ,
    Waveform,
    fit_length,
    resampled_length,
    resampled_pieces,
)


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

    `frames` counts what was decoded of each channel, `peak` is the largest magnitude, `doubt` what a person should know
    of the file. `sound_s` and `speech_s` say for how long something, and speech, can be heard in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = 0
        self.sample_rate_hz = SAMPLE_RATE_HZ
        self.peak = 0.0
        self.doubt: tuple[AudioFault, str] | None = None
        self._speech = SpeechLength()

    @property
    def sound_s(self) -> float:
        """How many seconds of what was read so far are neither silent nor far below the rest."""
        return self._speech.sound_s

    @property
    def speech_s(self) -> float:
        """How many seconds of that are near a voice."""
        return self._speech.seconds

    @property
    def seconds(self) -> float:
        """How long what was read so far is."""
        return self.frames / self.sample_rate_hz

    def __iter__(self) -> Iterator[Window]:
        """Read the file from its beginning; raises UnreadableAudioError, after the windows before the fault."""
        with open_audio(self.path) as file:
            self.frames, self.peak, self.sample_rate_hz = 0, 0.0, file.sample_rate_hz
            self._speech = SpeechLength()
            blocks = file.blocks(max(1, CROP_SAMPLES * self.sample_rate_hz // SAMPLE_RATE_HZ))
            pieces = resampled_pieces(self._measured(blocks), self.sample_rate_hz)
            yield from _windows(self._heard(pieces))
            self.doubt = doubt_about(file, self.peak)

    def _heard(self, pieces: Iterable[Waveform]) -> Iterator[Waveform]:
        for piece in pieces:
            self._speech.hear(piece)
            yield piece

    def _measured(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        for block in blocks:
            mono = mixed(block)
            self.frames += mono.size
            self.peak = max(self.peak, float(np.abs(mono).max(initial=0)))
            yield mono[:, None]


def expected_windows(path: Path) -> int:
    """Return how many windows a file has if its header is right, 1 if that cannot be known."""
    if needs_ffmpeg(path.name):  # which tells no length
        return 1
    try:
        with open_audio(path) as file:
            samples = resampled_length(file.expected_samples, file.sample_rate_hz)
    except UnreadableAudioError:
        return 1
    return max(1, -(-samples // CROP_SAMPLES))


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
