"""Is an exported file the detector that it was made from? The greatest difference of its outputs, case by case."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.export.exportable import Score, Taken
from utils.audio.finding import files_below, is_audio
from utils.audio.waveforms import fit_length, read_waveform

TOLERANCE = 1e-4
"""The greatest difference of an output allowed, or this share of it where it is greater than 1."""
BATCH_SIZES = (1, 3)
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


def takes_any_length(taken: Taken, original: Score, exported: Score) -> bool:
    """Return whether the exported network gives the original's outputs at lengths that it was not made with."""
    cases = {str(length): taken.make(2, length) for length in taken.other_lengths}
    try:
        return all(found.is_close for found in differences(original, exported, cases))
    except RuntimeError:  # what torch and the runtimes raise where a size is baked in
        return False


def random_cases(taken: Taken, any_length: bool) -> dict[str, Tensor]:
    """Return random inputs in batches of each size, at other lengths too where the file is to take any."""
    sizes = [(size, taken.length) for size in BATCH_SIZES]
    sizes += [(2, length) for length in taken.other_lengths] if any_length else []
    return {f"random, {size} x {length:,} {taken.unit}": taken.make(size, length) for size, length in sizes}


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
