"""Is an exported file the detector that it was made from? The greatest difference of its outputs, case by case."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.export.scored_detector import Score
from utils.audio.finding import files_below, is_audio
from utils.audio.waveforms import CROP_SAMPLES, fit_length, read_waveform

TOLERANCE = 1e-4
"""The greatest difference of a log-probability or score allowed, or this share of it where it is greater than 1."""
BATCH_SIZES = (1, 3)
OTHER_LENGTHS = (32_300, 97_001)
"""Lengths in samples at which a file must be right, too, before it is said to take any: a half, and an odd one.

A traced or converted detector may have a count of frames or nodes baked in that is right for lengths nearby.
"""
REAL_UTTERANCES = 4


@dataclass(frozen=True)
class Difference:
    """The greatest absolute difference of any output from the original's, on what `case` names."""

    case: str
    greatest: float
    is_close: bool


def differences(original: Score, exported: Score, cases: Mapping[str, Tensor]) -> list[Difference]:
    """Run both on each case, waveforms (batch, samples); what is not finite in one of them is never close."""
    return [_difference(case, original, exported, waveform) for case, waveform in cases.items()]


def _difference(case: str, original: Score, exported: Score, waveform: Tensor) -> Difference:
    with torch.inference_mode():
        pairs = list(zip(original(waveform), exported(waveform), strict=True))
    if any(mine.shape != theirs.shape for mine, theirs in pairs):
        return Difference(case, torch.inf, is_close=False)
    gaps = [(mine - theirs).abs() for mine, theirs in pairs]
    allowed = [TOLERANCE * mine.abs().clamp(min=1) for mine, _ in pairs]
    is_close = all(bool((gap <= most).all()) for gap, most in zip(gaps, allowed, strict=True))
    return Difference(case, max(float(gap.max()) for gap in gaps), is_close)


def takes_any_length(original: Score, exported: Score) -> bool:
    """Return whether the exported detector gives the original's outputs at lengths that it was not made with."""
    cases = {str(samples): noise(2, samples) for samples in OTHER_LENGTHS}
    try:
        return all(found.is_close for found in differences(original, exported, cases))
    except RuntimeError:  # what torch and the runtimes raise where a size is baked in
        return False


def random_cases(any_length: bool) -> dict[str, Tensor]:
    """Return noise in batches of each size, at other lengths too where the file is to take any."""
    cases = {f"random, {size} x {CROP_SAMPLES:,} samples": noise(size, CROP_SAMPLES) for size in BATCH_SIZES}
    if any_length:
        cases |= {f"random, 2 x {samples:,} samples": noise(2, samples) for samples in OTHER_LENGTHS}
    return cases


def noise(batch_size: int, samples: int) -> Tensor:
    """Return (batch_size, samples) of white noise as loud as speech, the same in every run."""
    generator = torch.Generator().manual_seed(batch_size)
    return torch.randn(batch_size, samples, generator=generator) / 10


def real_case(folder: Path) -> dict[str, Tensor]:
    """Return the first utterances found in `folder`, cut or repeated to 64,600 samples; {} where it has no audio."""
    if not folder.is_dir():
        return {}
    found = (Path(parent, name) for parent, names in files_below(folder) for name in names if is_audio(name))
    paths = list(itertools.islice(filter(Path.is_file, found), REAL_UTTERANCES))  # not all of a large corpus first
    if not paths:
        return {}
    waveforms = np.stack([fit_length(read_waveform(path)) for path in paths])
    return {f"{len(paths)} utterances of {folder}": torch.from_numpy(waveforms)}
