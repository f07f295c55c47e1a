"""The memory of worker processes by the number of trials: a part of `benchmarks.growth`, which runs it."""

from __future__ import annotations

import gc
import statistics
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch

from training.data.loading import BatchDataset, BatchKey, BatchReader
from utils.audio.waveforms import Waveform
from utils.corpora import CorpusPart
from utils.corpora.trials import Protocol, Trial

PARTS = (10_000, 300_000, 1_000_000)
WORKERS = 2


def part_of(number: int) -> CorpusPart:
    """Return a part as large as this, whose audio is nowhere."""
    names = [f"LA_T_{at:07d}" for at in range(number)]
    trials = tuple(Trial(f"LA_{at % 107:04d}", name, "-", at % 10 == 0) for at, name in enumerate(names))
    paths = tuple(Path(f"/data/LA/ASVspoof2019_LA_train/flac/{name}.flac") for name in names)
    return CorpusPart("train", Protocol(Path("protocol.txt"), trials, "0" * 64), paths)


def _nothing(_: Waveform, __: int, ___: str, ____: int = 0) -> Waveform:
    return np.zeros(1, dtype=np.float32)


def show_workers() -> None:
    """Print the memory of worker processes when they have seen every trial of a part once, in a random order."""
    print(f"\nMiB of each of {WORKERS} workers, by trials{'':<10}USS, at first     PSS   USS, after an epoch     PSS")
    for number, is_kept in ((number, is_kept) for number in PARTS for is_kept in (False, True)):
        part = part_of(number)
        dataset = BatchDataset(part, _nothing)
        if not is_kept:
            del part
        order = torch.randperm(number, generator=torch.Generator().manual_seed(1)).tolist()
        keys = [BatchKey(1, tuple(order[at : at + 64])) for at in range(0, number, 64)]
        gc.collect()
        with patch("training.data.loading.read_waveform", lambda _: np.zeros(1, dtype=np.float32)):
            reader = BatchReader(dataset, WORKERS, False)
            batches = reader.read(keys)
            next(batches)
            first = _memory_of_workers(reader)
            for _ in batches:
                pass
            last = _memory_of_workers(reader)
            reader.close()
        of = "--eval" if is_kept else "training"
        print(
            f"  {number:9,}, as in {of:<20} {first[0]:10.0f} {first[1]:7.0f} {last[0]:21.0f} {last[1]:7.0f}", flush=True
        )
        del reader, batches, dataset


def _memory_of_workers(reader: BatchReader) -> tuple[float, float]:
    """Return the mean over workers of what is theirs alone, and of their share of all, in MiB (Linux)."""
    own, shared = [], []
    for worker in cast(Any, reader)._iterator._workers:
        lines = Path(f"/proc/{worker.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        own.append(kib["Private_Clean"] + kib["Private_Dirty"])
        shared.append(kib["Pss"])
    return statistics.mean(own) / 1024, statistics.mean(shared) / 1024
