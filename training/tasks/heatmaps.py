"""Attention heatmaps of a detector as PNG files: the mean of each class, and a figure for each utterance."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from models.attention_pooling import temporal_prior
from models.detector import Detector, scores
from training.data.batches import validation_view
from training.data.loading import read_waveforms
from training.tasks.heatmap_figures import (
    CLASS_NAMES,
    CLASS_TITLES,
    UNLABELLED,
    AttentionPicture,
    Prediction,
    inter_group_figure,
    intra_group_figure,
    layer_importance_figure,
    layer_time_figure,
    sample_figure,
)
from utils.atomic_files import atomic_write, remove_stray_temporaries
from utils.audio.waveforms import SAMPLE_RATE_HZ, Waveform
from utils.console import say
from utils.corpora import CorpusPart
from utils.interruption import StopRequest
from utils.waiting import NEVER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150

Sample = tuple[str, Waveform, bool | None]
"""The utterance's name, its waveform (samples,) at 16 kHz, and whether it is bona fide, None where it is not known."""

_CLASS_FIGURES = {
    "temporal_attention_heatmap": layer_time_figure,
    "intra_group_attention": intra_group_figure,
    "inter_group_attention": inter_group_figure,
    "layer_importance": layer_importance_figure,
}


def draw_part(
    detector: Detector,
    part: CorpusPart,
    how_many: int,
    folder: Path,
    device: torch.device,
    *,
    stop: StopRequest = NEVER,
) -> None:
    """Draw up to `how_many` utterances of a part into `folder`, which is made, and say how many figures there are.

    Half of them are bona fide where the labels are known, else they are spread over the part and drawn without. Raises
    OSError, UserError for audio that cannot be read, and StopAskedError where `stop` comes while it is read.
    """
    samples = _samples(part, how_many, stop)
    folder.mkdir(parents=True, exist_ok=True)
    remove_stray_temporaries(folder)
    written = write_attention_heatmaps(detector, samples, folder, device)
    unlabelled = "" if any(label is not None for _, _, label in samples) else ", of utterances without a key"
    say(f"Attention heatmaps: {len(written)} figures in {folder}{unlabelled}")


def _samples(part: CorpusPart, how_many: int, stop: StopRequest) -> list[Sample]:
    trials = part.protocol.trials
    known = [index for index, trial in enumerate(trials) if trial.is_bona_fide is not None]
    if known:
        balanced = choose_balanced([bool(trials[index].is_bona_fide) for index in known], how_many)
        chosen = [known[position] for position in balanced]
    else:
        chosen = _evenly_spaced(range(len(trials)), min(how_many, len(trials)))
    heard = read_waveforms([part.audio_paths[index] for index in chosen], stop)
    return [
        (trials[index].utterance, validation_view(waveform, 0, trials[index].utterance), trials[index].is_bona_fide)
        for index, waveform in zip(chosen, heard, strict=True)
    ]


def choose_balanced(labels: Sequence[bool | int], how_many: int) -> list[int]:
    """Return the indices, ascending, of up to `how_many` utterances, half of them bona fide where there are enough.

    Each class is sampled at even distances: protocols list attack after attack, so the first ones would all be of one
    kind. Nothing is drawn: the same labels give the same choice. An odd one is bona fide.

    >>> choose_balanced([0, 0, 0, 0, 0, 0, 1, 1], 4)
    [0, 3, 6, 7]
    """
    bona_fide = [index for index, label in enumerate(labels) if label]
    spoof = [index for index, label in enumerate(labels) if not label]
    num_spoof = min(len(spoof), max(how_many // 2, how_many - len(bona_fide)))
    num_bona_fide = min(len(bona_fide), how_many - num_spoof)
    return sorted(_evenly_spaced(bona_fide, num_bona_fide) + _evenly_spaced(spoof, num_spoof))


def write_attention_heatmaps(
    detector: Detector, samples: Sequence[Sample], folder: Path, device: torch.device | str
) -> list[Path]:
    """Write the figures of `samples`, whose waveforms have one length, into `folder`, and return their paths.

    Four mean figures for each class (one that has no sample is left out, and that is said), or for all samples where
    none has a label, then one figure for each sample, named by its number, its class, the prediction and whether that
    is right. Draws no random numbers and leaves the detector in the mode it was in. A name holds a whole figure or
    nothing, if the process is killed too. Raises ValueError for a detector without attention weights.
    """
    with _evaluation_mode(detector), torch.inference_mode():
        analysed = [_analyse(detector, sample, device) for sample in samples]
    written = []
    if all(verdict.is_bona_fide is None for _, verdict in analysed):
        written += _write_class([picture for picture, _ in analysed], UNLABELLED, UNLABELLED, folder)
    else:
        written += _write_classes(analysed, folder)
    for number, (picture, verdict) in enumerate(analysed):
        written.append(_write(sample_figure(picture, verdict), folder / _sample_name(number, verdict)))
    return written


def _write_classes(analysed: Sequence[tuple[AttentionPicture, Prediction]], folder: Path) -> list[Path]:
    written = []
    for label, name in reversed(list(enumerate(CLASS_NAMES))):
        of_class = [picture for picture, verdict in analysed if verdict.is_bona_fide == bool(label)]
        if of_class:
            written += _write_class(of_class, name, CLASS_TITLES[label], folder)
        else:
            say(f"[NOTE] no {CLASS_TITLES[label]} utterance among the samples: {folder}/*_{name}.png are left out")
    return written


def _analyse(detector: Detector, sample: Sample, device: torch.device | str) -> tuple[AttentionPicture, Prediction]:
    utterance, waveform, is_bona_fide = sample
    output = detector.analyse(torch.as_tensor(waveform, dtype=torch.float32, device=device).unsqueeze(0))
    attention = output.attention
    if attention is None:
        raise ValueError(f"{type(detector).__name__} gives no attention weights to draw")

    def plain(weights: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return weights[0].double().cpu().numpy()

    picture = AttentionPicture(
        temporal=plain(attention.temporal),
        intra=plain(attention.intra),
        inter=plain(attention.inter),
        layer_importance=plain(attention.layer_importance()),
        time_importance=plain(attention.time_importance()),
        prior=plain(temporal_prior(detector.settings.temporal_bias, attention.temporal.shape[-1]).unsqueeze(0)),
        seconds=len(waveform) / SAMPLE_RATE_HZ,
    )
    return picture, Prediction(utterance, is_bona_fide, scores(output.log_probabilities).item())


def _write_class(pictures: Sequence[AttentionPicture], name: str, words: str, folder: Path) -> list[Path]:
    mean = _mean(pictures)
    title = f"Mean of {len(pictures)} {words} utterance{'s' if len(pictures) > 1 else ''}"
    return [_write(draw(mean, title), folder / f"{kind}_{name}.png") for kind, draw in _CLASS_FIGURES.items()]


def _mean(pictures: Sequence[AttentionPicture]) -> AttentionPicture:
    return AttentionPicture(
        temporal=np.mean([picture.temporal for picture in pictures], axis=0),
        intra=np.mean([picture.intra for picture in pictures], axis=0),
        inter=np.mean([picture.inter for picture in pictures], axis=0),
        layer_importance=np.mean([picture.layer_importance for picture in pictures], axis=0),
        time_importance=np.mean([picture.time_importance for picture in pictures], axis=0),
        prior=pictures[0].prior,
        seconds=pictures[0].seconds,
    )


def _sample_name(number: int, verdict: Prediction) -> str:
    predicted = CLASS_NAMES[verdict.is_predicted_bona_fide]
    if verdict.is_bona_fide is None:
        return f"sample_{number:03d}_{UNLABELLED}_pred_{predicted}.png"
    truth = CLASS_NAMES[verdict.is_bona_fide]
    return f"sample_{number:03d}_{truth}_pred_{predicted}_{'ok' if verdict.is_right else 'wrong'}.png"


def _write(figure: Figure, path: Path) -> Path:
    with atomic_write(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing")  # a name in letters that the font lacks: boxes
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    return path


def _evenly_spaced(indices: Sequence[int], how_many: int) -> list[int]:
    return [indices[place * len(indices) // how_many] for place in range(how_many)]


@contextmanager
def _evaluation_mode(detector: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block; afterwards each part of `detector` is in the mode it was in."""
    training_parts = [part for part in detector.modules() if part.training]
    detector.eval()
    try:
        yield
    finally:
        for part in training_parts:
            part.training = True
