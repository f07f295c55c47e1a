"""Utterances per second that reach the loop, with RawBoost and without: our batches beside a plain Dataset.

    OMP_NUM_THREADS=1 python -m benchmarks.data_pipeline [--published FOLDER] [--corpus FOLDER] [--utterances N]

The other side is what most code of the field does: a Dataset that reads a FLAC file, augments it with the published
RawBoost, repeats or cuts it to 64,600 samples, in a shuffling DataLoader. FOLDER of --published holds RawBoost.py of
github.com/TakHemlata/RawBoost-antispoofing; without it there is no other side with RawBoost. Both read the same files
of the corpus (`demo`, unless told otherwise) in batches of 16, turn by turn. Each process has read all files before it
is timed, and workers are there already: what is measured is an epoch that is not the first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.measuring import machine_text
from benchmarks.rawboost import Augment, load_published
from training.data.batches import TrainingBatches
from utils.audio.rawboost import RawBoost
from utils.audio.waveforms import CROP_SAMPLES
from utils.corpora import CorpusPart, find_corpus, limit_examples
from utils.corpora.demo_corpus import demo_corpus_folder

BATCH_SIZE = 16
ALGORITHMS = (0, 3, 4, 5)
REPEATS = 5

Epoch = Callable[[int], Iterable[Any]]


class PlainDataset(Dataset[tuple[torch.Tensor, int]]):
    """Utterances as the field's training code reads them."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], augment: Augment | None, algorithm: int) -> None:
        self._paths = paths
        self._labels = labels
        self._augment = augment
        self._algorithm = algorithm

    def __len__(self) -> int:
        """How many utterances there are."""
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return `(64600,)` and the label."""
        samples: Any = soundfile.read(self._paths[index], dtype="float32")[0]
        if self._augment:
            samples = self._augment(self._algorithm, samples, index + 1)
        repeated = np.tile(samples, CROP_SAMPLES // len(samples) + 1)[:CROP_SAMPLES]
        return torch.tensor(repeated, dtype=torch.float32), self._labels[index]


def plain_epochs(part: CorpusPart, augment: Augment | None, algorithm: int, num_workers: int) -> Epoch:
    """Return epochs of a DataLoader over a `PlainDataset`."""
    dataset = PlainDataset(part.audio_paths, [label or 0 for label in part.protocol.labels], augment, algorithm)
    loader = DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0)
    return lambda _: loader


def our_epochs(part: CorpusPart, algorithm: int, num_workers: int) -> Epoch:
    """Return epochs of the batches that training takes."""
    batches = TrainingBatches(
        part, batch_size=BATCH_SIZE, seed=1234, augmentation=RawBoost(algorithm), num_workers=num_workers
    )
    return partial(batches.batches)


def seconds(epoch: Epoch, number: int) -> float:
    """Return the wall time of going through an epoch."""
    before = time.perf_counter()
    for _ in epoch(number):
        pass
    return time.perf_counter() - before


def main(published: Path | None, corpus: Path | None, num_utterances: int) -> None:
    """Print utterances per second, the median of some epochs in which both sides take turns."""
    print(machine_text())
    part = limit_examples(find_corpus(corpus or demo_corpus_folder()).train, num_utterances, seed=1234)
    print(f"{len(part)} utterances, batches of {BATCH_SIZE}; soundfile {soundfile.__version__}, NumPy {np.__version__}")
    print(f"{'utterances per second':<26}{'workers':>8}{'ours':>10}{'plain':>10}{'ratio':>8}   range of the ratio")
    augment = load_published(published) if published else None
    for algorithm in ALGORITHMS:
        for num_workers in (0, 2):
            sides = [our_epochs(part, algorithm, num_workers)]
            if augment or not algorithm:
                sides.append(plain_epochs(part, augment if algorithm else None, algorithm, num_workers))
            rounds = [[seconds(side, number) for side in sides] for number in range(1, REPEATS + 2)][1:]
            _print_row("RawBoost " + str(algorithm) if algorithm else "no RawBoost", num_workers, len(part), rounds)


def _print_row(title: str, num_workers: int, num_utterances: int, rounds: Sequence[Sequence[float]]) -> None:
    rates = [num_utterances / statistics.median(column) for column in zip(*rounds, strict=True)]
    row = f"{title:<26}{num_workers:>8}" + "".join(f"{rate:10.0f}" for rate in rates)
    if len(rates) > 1:
        ratios = [plain / ours for ours, plain in rounds]
        row += f"{statistics.median(ratios):7.1f}x   {min(ratios):.1f}x to {max(ratios):.1f}x"
    print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Utterances per second of the data pipeline")
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="folder with the published RawBoost.py")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="an ASVspoof 2019 LA tree (default: demo)")
    parser.add_argument("--utterances", type=int, default=320, metavar="N", help="how many (default: 320)")
    typed = parser.parse_args()
    main(typed.published, typed.corpus, typed.utterances)
