"""Speech-like signals by source-filter synthesis: the bona fide side of the demo corpus (see demo_corpus.py).

A glottal pulse train with jitter, shimmer and breath passes five moving resonances; consonants are noise, pauses are
pauses. The result babbles: it has the physics that a vocoder simplifies, and no words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d
from scipy.signal import fftconvolve, lfilter

from utils.audio.waveforms import SAMPLE_RATE_HZ

Signal = npt.NDArray[np.float64]

_FRAME_SAMPLES = 160
_FILTER_SAMPLES = 960
_VOWELS_HZ = (
    (270, 2290, 3010),
    (390, 1990, 2550),
    (530, 1840, 2480),
    (660, 1720, 2410),
    (730, 1090, 2440),
    (570, 840, 2410),
    (440, 1020, 2240),
    (300, 870, 2240),
    (640, 1190, 2390),
    (490, 1350, 1690),
)
"""First three formants of ten vowels, averages for men (Peterson and Barney, JASA 24, 1952, table II)."""
_NASAL_HZ = (250, 1100, 2300)
_UPPER_FORMANTS_HZ = (3400, 4500)
_BANDWIDTHS_HZ = np.array([60.0, 90.0, 140.0, 220.0, 300.0])


@dataclass(frozen=True)
class Speaker:
    """What one voice keeps over all its utterances; jitter, shimmer, breath and vibrato are relative (1 = 100 %)."""

    f0_hz: float
    formant_scale: float
    jitter: float
    shimmer: float
    breath: float
    vibrato: float
    vibrato_hz: float
    open_quotient: float


@dataclass(frozen=True)
class _Segment:
    """A speech sound: `frames` of 10 ms, its formants, and how much voice and noise it has."""

    frames: int
    formants_hz: tuple[float, ...]
    voice: float
    noise: float
    noise_hz: float


def draw_speaker(generator: np.random.Generator) -> Speaker:
    """Draw a voice: a low or a high one, with the vocal tract length that goes with it."""
    is_high = generator.random() < 0.5
    return Speaker(
        f0_hz=generator.uniform(165, 235) if is_high else generator.uniform(90, 140),
        formant_scale=generator.uniform(1.08, 1.2) if is_high else generator.uniform(0.94, 1.06),
        jitter=generator.uniform(0.006, 0.015),
        shimmer=generator.uniform(0.04, 0.10),
        breath=generator.uniform(0.03, 0.10),
        vibrato=generator.uniform(0.004, 0.015),
        vibrato_hz=generator.uniform(4.5, 6.5),
        open_quotient=generator.uniform(0.5, 0.75),
    )


def babble(speaker: Speaker, num_samples: int, generator: np.random.Generator) -> Signal:
    """Return `(num_samples,)` of one voice babbling at 16 kHz, with a root mean square of 1 and no echo."""
    num_frames = -(-num_samples // _FRAME_SAMPLES)
    segments = _plan_segments(num_frames, generator)
    tracks = {
        "voice": _smooth(_per_frame([segment.voice for segment in segments], segments, num_frames), 2),
        "noise": _per_frame([segment.noise for segment in segments], segments, num_frames),
        "noise_hz": _per_frame([segment.noise_hz for segment in segments], segments, num_frames),
    }
    formants = _smooth(_per_frame([segment.formants_hz for segment in segments], segments, num_frames), 4)
    source = _glottal_source(speaker, _f0_contour(speaker, segments, num_frames, generator), tracks["voice"], generator)
    voiced = _resonate(source, formants * speaker.formant_scale, _BANDWIDTHS_HZ)
    hiss = generator.standard_normal(source.size) * _upsampled(tracks["noise"])
    unvoiced = _resonate(hiss, tracks["noise_hz"][:, None], np.array([1500.0]))
    return _unit_level((_unit_level(voiced) + 0.35 * _unit_level(unvoiced))[:num_samples])


def record(clean: Signal, generator: np.random.Generator) -> Signal:
    """Return `clean` as a microphone in a room hears it: echo, tilt, noise floor and level, in full scale of 1.

    Both classes of the demo corpus pass through here last, so that none of these tells them apart.
    """
    echo_samples = int(generator.uniform(0.04, 0.12) * SAMPLE_RATE_HZ)
    echo = generator.standard_normal(echo_samples) * np.exp(-6.9 * np.arange(echo_samples) / echo_samples)
    echo *= generator.uniform(0.03, 0.1) / np.sqrt((echo**2).sum())
    echo[0] = 1.0
    heard = fftconvolve(clean, echo)[: clean.size]
    heard = lfilter([1.0, generator.uniform(-0.35, 0.35)], [1.0], heard)
    heard = lfilter([1.0, -1.0], [1.0, -0.975], heard)
    floor = lfilter([1.0], [1.0, -generator.uniform(0.3, 0.8)], generator.standard_normal(clean.size))
    floor_level = 10 ** (generator.uniform(-52, -44) / 20)
    level = 10 ** (generator.uniform(-30, -24) / 20)
    recording = level * _unit_level(_unit_level(heard) + floor_level * _unit_level(floor))
    return recording / max(1.0, float(np.abs(recording).max()) / 0.99)


def _plan_segments(num_frames: int, generator: np.random.Generator) -> list[_Segment]:
    segments = [_pause(generator)]
    while sum(segment.frames for segment in segments) < num_frames:
        for _ in range(int(generator.integers(3, 7))):
            segments.extend(_syllable(generator))
        segments.append(_pause(generator))
    return segments


def _syllable(generator: np.random.Generator) -> list[_Segment]:
    vowel = _tract(_VOWELS_HZ[int(generator.integers(len(_VOWELS_HZ)))])
    glide = _tract(_VOWELS_HZ[int(generator.integers(len(_VOWELS_HZ)))])
    nucleus = [_Segment(int(generator.integers(5, 15)), vowel, generator.uniform(0.7, 1.0), 0.0, 3000.0)]
    if generator.random() < 0.3:
        nucleus.append(_Segment(int(generator.integers(4, 9)), glide, generator.uniform(0.5, 0.9), 0.0, 3000.0))
    kind = generator.choice(["fricative", "voiced fricative", "burst", "nasal", "none"], p=[0.25, 0.1, 0.3, 0.2, 0.15])
    centre_hz = generator.uniform(2200, 6500)
    onsets = {
        "fricative": [_Segment(int(generator.integers(6, 13)), vowel, 0.0, generator.uniform(0.3, 0.8), centre_hz)],
        "voiced fricative": [_Segment(int(generator.integers(4, 8)), vowel, 0.3, 0.25, centre_hz)],
        "burst": [
            _Segment(int(generator.integers(3, 7)), vowel, 0.0, 0.0, centre_hz),
            _Segment(int(generator.integers(1, 3)), vowel, 0.0, generator.uniform(0.6, 1.2), centre_hz),
        ],
        "nasal": [_Segment(int(generator.integers(4, 9)), _tract(_NASAL_HZ), 0.4, 0.0, 3000.0)],
        "none": [],
    }
    return onsets[str(kind)] + nucleus


def _pause(generator: np.random.Generator) -> _Segment:
    breath = generator.uniform(0.01, 0.06) if generator.random() < 0.5 else 0.0
    return _Segment(int(generator.integers(7, 30)), _tract((500, 1500, 2500)), 0.0, breath, 1800.0)


def _tract(lower_formants_hz: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(float(formant) for formant in (*lower_formants_hz, *_UPPER_FORMANTS_HZ))


def _per_frame(values: list[float] | list[tuple[float, ...]], segments: list[_Segment], num_frames: int) -> Signal:
    """Hold each segment's value for its frames: `(num_frames,)` or `(num_frames, values)`."""
    frames = [segment.frames for segment in segments]
    return np.repeat(np.array(values, dtype=np.float64), frames, axis=0)[:num_frames]


def _smooth(track: Signal, frames: int) -> Signal:
    return uniform_filter1d(uniform_filter1d(track, frames, axis=0, mode="nearest"), frames, axis=0, mode="nearest")


def _upsampled(track: Signal) -> Signal:
    """Interpolate a track from frames to samples."""
    samples = np.arange(track.size * _FRAME_SAMPLES)
    return np.interp(samples, np.arange(track.size) * _FRAME_SAMPLES + _FRAME_SAMPLES / 2, track)


def _f0_contour(speaker: Speaker, segments: list[_Segment], num_frames: int, generator: np.random.Generator) -> Signal:
    """Return F0 in Hz per frame: an accent per segment, a falling line per utterance, vibrato."""
    accents = [float(accent) for accent in generator.normal(0.0, 0.12, len(segments))]
    intonation = _smooth(_per_frame(accents, segments, num_frames), 10)
    time_s = np.arange(num_frames) * _FRAME_SAMPLES / SAMPLE_RATE_HZ
    vibrato = speaker.vibrato * np.sin(2 * np.pi * (speaker.vibrato_hz * time_s + generator.random()))
    return np.asarray(speaker.f0_hz * np.exp(intonation + vibrato + np.linspace(0.1, -0.15, num_frames)))


def _glottal_source(speaker: Speaker, f0_hz: Signal, voice: Signal, generator: np.random.Generator) -> Signal:
    """Return the derivative of the glottal flow, `(samples,)`, with breath noise while the glottis is open.

    The flow rises and falls as in Rosenberg's trigonometric model (JASA 49, 1971), two thirds of the open time rising.
    """
    onsets = _pulse_onsets(speaker, f0_hz, generator)
    samples = np.arange(f0_hz.size * _FRAME_SAMPLES)
    pulse = np.clip(np.searchsorted(onsets, samples, side="right") - 1, 0, onsets.size - 2)
    phase = (samples - onsets[pulse]) / (onsets[pulse + 1] - onsets[pulse])
    open_quotient = speaker.open_quotient * (1 + 0.05 * generator.standard_normal(onsets.size))[pulse]
    rise = open_quotient * 2 / 3
    fall = open_quotient - rise
    rising = np.sin(np.pi * phase / rise) * np.pi / (2 * rise)
    falling = -np.sin(np.pi * (phase - rise) / (2 * fall)) * np.pi / (2 * fall)
    flow_slope = np.where(phase < rise, rising, np.where(phase < open_quotient, falling, 0.0))
    strength = np.maximum(0.1, 1 + speaker.shimmer * generator.standard_normal(onsets.size))[pulse]
    breath = generator.standard_normal(samples.size) * np.where(phase < open_quotient, 1.0, 0.3)
    return np.asarray((flow_slope * strength + 10 * speaker.breath * breath) * _upsampled(voice))


def _pulse_onsets(speaker: Speaker, f0_hz: Signal, generator: np.random.Generator) -> Signal:
    """Return the onsets of the glottal pulses in samples, each period disturbed by jitter, past the end by one."""
    onsets = [0.0]
    end = f0_hz.size * _FRAME_SAMPLES
    while onsets[-1] < end:
        frame = int(onsets[-1]) // _FRAME_SAMPLES
        onsets.append(onsets[-1] + SAMPLE_RATE_HZ / f0_hz[frame] * (1 + speaker.jitter * generator.standard_normal()))
    return np.array(onsets)


def _resonate(source: Signal, centres_hz: Signal, bandwidths_hz: Signal) -> Signal:
    """Pass `source` through resonators in a row whose centres `(frames, resonators)` change from frame to frame.

    The two-pole resonator of unit gain at 0 Hz is Klatt's (JASA 67, 1980, section I.B). Each frame is filtered as a
    whole and fades into the next one.
    """
    squared_radius = np.exp(-2 * np.pi * bandwidths_hz / SAMPLE_RATE_HZ) * np.ones_like(centres_hz)
    first = -2 * np.sqrt(squared_radius) * np.cos(2 * np.pi * centres_hz / SAMPLE_RATE_HZ)
    poles = np.ones((centres_hz.shape[0], 1))
    for resonator in range(centres_hz.shape[1]):
        widened = np.pad(poles, ((0, 0), (0, 2)))
        widened[:, 1:-1] += first[:, resonator, None] * poles
        widened[:, 2:] += squared_radius[:, resonator, None] * poles
        poles = widened
    gain = (1 + first + squared_radius).prod(axis=1, keepdims=True)
    fade = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * _FRAME_SAMPLES) / _FRAME_SAMPLES)
    padded = np.pad(source, (_FRAME_SAMPLES // 2, _FRAME_SAMPLES // 2 + _FRAME_SAMPLES))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2 * _FRAME_SAMPLES)[::_FRAME_SAMPLES][: len(poles)] * fade
    spectra = np.fft.rfft(frames, _FILTER_SAMPLES) * gain / np.fft.rfft(poles, _FILTER_SAMPLES)
    return _overlap_add(np.fft.irfft(spectra))[_FRAME_SAMPLES // 2 :][: source.size]


def _overlap_add(frames: Signal) -> Signal:
    """Sum `(frames, size)` one hop of `_FRAME_SAMPLES` apart."""
    hops = -(-frames.shape[1] // _FRAME_SAMPLES)
    blocks = np.zeros((frames.shape[0] + hops, _FRAME_SAMPLES))
    for hop in range(hops):
        part = frames[:, hop * _FRAME_SAMPLES : (hop + 1) * _FRAME_SAMPLES]
        blocks[hop : hop + frames.shape[0], : part.shape[1]] += part
    return blocks.reshape(-1)


def _unit_level(signal: Signal) -> Signal:
    """Scale to a root mean square of 1; silence stays silence."""
    return signal / max(float(np.sqrt(np.mean(signal**2))), 1e-12)
