"""For how long speech can be heard in a recording: what is loud enough, near a change of the spectrum's shape.

Frames of 20 ms count that are neither silent nor far below the loudest one, as in active speech level (ITU-T P.56), and
lie within 0.7 s of such a change. Speech moves its power between low and high bands several times a second, voiced or
whispered, and noise of any colour, hum, tones and clicks do not: the idea of long-term signal variability (Ghosh,
Tsiartas and Narayanan, IEEE Trans. Audio, Speech, and Language Processing 19 (2011), section II), here with the levels
of six bands, relative to each other, 160 and 320 ms apart. Bands end at 3.4 kHz, where the telephone does.

It errs to the side of speech: music counts, and so does a room in which things happen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
FRAME_S = 0.02
FLOOR = 1e-3
"""-60 dB of full scale, which the noise of a quiet recording stays below."""
_UNHEARD_OF = np.float32(1e12)
"""What is larger is as loud as this, so that powers fit into float32."""
BELOW_LOUDEST = 1e-2
"""40 dB below the loudest frame: the range of speech; what is lower is the room between the words."""
CHANGE_DB = 2.7
"""Root mean square over the bands. A quarter of an hour of white, pink or brown noise stays below 2.4, and utterances
with noise at 10 dB have 3.1 or more (docs/measurements.md, "What is no speech")."""
NEAR_S = 0.7

_FRAME = round(FRAME_S * RATE_HZ)
_WINDOW = 1024
_HANN = np.hanning(_WINDOW).astype(np.float32)
_EDGES = np.round(np.array([150, 350, 650, 1000, 1500, 2200, 3400]) * _WINDOW / RATE_HZ).astype(int)
_AVERAGED = 7  # windows, one frame apart: 184 ms
_APART = (8, 16)  # frames
_MIDDLE_FRAME = _WINDOW // _FRAME // 2
_LINE_SHARE = 0.97  # of the power, in one line: a tone
_CREST = 12.0  # the largest magnitude over the mean one: a click

Samples = NDArray[np.float32]
Flags = NDArray[np.bool_]


class SpeechLength:
    """Hears a recording at 16 kHz piece by piece and says for how many seconds there was sound, and speech, in it."""

    def __init__(self) -> None:
        self._levels: list[Samples] = [np.zeros(0, dtype=np.float32)]
        self._bands: list[Samples] = [np.zeros((0, _EDGES.size - 1), dtype=np.float32)]
        self._frame_rest: Samples = np.zeros(0, dtype=np.float32)
        self._window_rest: Samples = np.zeros(0, dtype=np.float32)

    def hear(self, piece: Samples) -> None:
        """Take the next samples `(samples,)`, mono, full scale 1."""
        piece = np.clip(piece, -_UNHEARD_OF, _UNHEARD_OF)
        samples = np.concatenate((self._frame_rest, piece))
        whole = samples.size // _FRAME * _FRAME
        # The standard deviation: a constant offset is no sound.
        self._levels.append(samples[:whole].reshape(-1, _FRAME).std(axis=1))
        self._frame_rest = samples[whole:]
        samples = np.concatenate((self._window_rest, piece))
        bands = _bands(samples)
        self._bands.append(bands)
        self._window_rest = samples[len(bands) * _FRAME :]

    @property
    def sound_s(self) -> float:
        """The total length of the frames with sound; a last frame that is not whole counts for nothing."""
        return float(np.count_nonzero(self._are_loud())) * FRAME_S

    @property
    def seconds(self) -> float:
        """The total length of the frames with sound that are near a change of the spectrum's shape."""
        are_loud = self._are_loud()
        are_near = _near(_changes_db(np.concatenate(self._bands), are_loud) > CHANGE_DB)
        return float(np.count_nonzero(are_loud & are_near)) * FRAME_S

    def _are_loud(self) -> Flags:
        levels = np.concatenate(self._levels)
        return np.asarray(levels >= max(FLOOR, BELOW_LOUDEST * float(levels.max(initial=0))))


def _bands(samples: Samples) -> Samples:
    """Return `(windows, bands)`, the mean magnitude in each, for as many whole windows as there are, a frame apart.

    All are 0 for what is no speech: a window whose power is nearly all in one line, or in one click.
    """
    if samples.size < _WINDOW:
        return np.zeros((0, _EDGES.size - 1), dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_FRAME]
    windows = windows - windows.mean(axis=1, keepdims=True)
    magnitudes = np.abs(np.fft.rfft(windows * _HANN, axis=1))
    power = np.cumsum(np.pad(magnitudes**2, ((0, 0), (3, 2))), axis=1)
    are_tones = (power[:, 5:] - power[:, :-5]).max(axis=1) > _LINE_SHARE * power[:, -1]  # 5 bins: a line under a Hann
    are_clicks = np.abs(windows).max(axis=1) > _CREST * windows.std(axis=1)
    bands = np.add.reduceat(magnitudes[:, : _EDGES[-1]], _EDGES[:-1], axis=1) / np.diff(_EDGES)
    return np.asarray(bands * ~(are_tones | are_clicks)[:, None], dtype=np.float32)


def _changes_db(bands: Samples, are_loud: Flags) -> NDArray[np.float64]:
    """Return for each frame how much the shape of the spectrum changes around it, 0 where that cannot be told."""
    changes = np.zeros(are_loud.size)
    rows = len(bands) - _AVERAGED + 1
    if rows <= 0:
        return changes
    counts = bands.any(axis=1) & are_loud[_MIDDLE_FRAME : _MIDDLE_FRAME + len(bands)]
    sums = np.cumsum(np.pad(bands * counts[:, None], ((1, 0), (0, 0))), axis=0, dtype=np.float64)
    numbers = np.cumsum(np.pad(counts, (1, 0)), dtype=np.float64)
    numbers = numbers[_AVERAGED:] - numbers[:-_AVERAGED]
    means = (sums[_AVERAGED:] - sums[:-_AVERAGED]) / np.maximum(1, numbers)[:, None]
    are_known = numbers > _AVERAGED / 2
    shapes = 20 * np.log10(means + 1e-3 * means.sum(axis=1, keepdims=True) + 1e-12)
    shapes -= shapes.mean(axis=1, keepdims=True)
    for apart in _APART:
        found = np.sqrt(np.mean((shapes[apart:] - shapes[:-apart]) ** 2, axis=1)) * (
            are_known[apart:] & are_known[:-apart]
        )
        middle = (apart + _AVERAGED) // 2 + _MIDDLE_FRAME
        around = changes[middle : middle + found.size]
        np.maximum(around, found[: around.size], out=around)
    return changes


def _near(flags: Flags) -> Flags:
    """Return which frames are at most 0.7 s away from one of those that are set."""
    reach = round(NEAR_S / FRAME_S)
    sums = np.cumsum(np.pad(flags, (reach + 1, reach)))
    return np.asarray(sums[2 * reach + 1 :] > sums[: -2 * reach - 1])
