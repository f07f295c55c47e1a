"""What it costs at a start to see whether the audio of a corpus is still the same.

    python -m benchmarks.audio_identity [FOLDER]

Makes 25,000 files of 4,000 bytes in a temporary folder (in FOLDER, if given), as many as ASVspoof 2019 LA has for
training, and asks for their sizes and for the contents of 32: as they lie in the page cache, and with a wait of 1 ms
before each answer, which is what a file server far away adds. Then 32 files of 4 s of FLAC alone, whose samples are
decoded: what that adds to both.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import soundfile

from benchmarks.measuring import machine_text
from training.data import audio_identity as asked
from utils.audio.waveforms import SAMPLE_RATE_HZ
from utils.corpora import CorpusPart
from utils.corpora.trials import Protocol, Trial

NUM_FILES = 25_000
REPEATS = 5
_WAIT_S = 0.001


def main(folder: str | None) -> None:
    """Print the machine and the seconds of both."""
    print(machine_text())
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        part = _part(Path(temporary))
        print(f"{NUM_FILES:,} files, in the page cache: {_median_s(part):.2f} s")
        with (
            patch.object(asked, "_size", _after_a_wait(asked._size)),
            patch.object(asked, "_content", _after_a_wait(asked._content)),
        ):
            print(f"{NUM_FILES:,} files, each answer after 1 ms: {_median_s(part):.2f} s")
        whole = replace(part, audio_paths=part.audio_paths[: asked.NUM_DRAWN], protocol=_first_of(part.protocol))
        for path in whole.audio_paths:
            soundfile.write(path, 0.1 * np.random.default_rng(1).standard_normal(4 * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
        print(f"{asked.NUM_DRAWN} files of 4 s, decoded: {_median_s(whole):.3f} s")


def _first_of(protocol: Protocol) -> Protocol:
    return replace(protocol, trials=protocol.trials[: asked.NUM_DRAWN])


def _part(folder: Path) -> CorpusPart:
    names = [f"LA_T_{number:07d}" for number in range(NUM_FILES)]
    paths = tuple(folder / f"{name}.flac" for name in names)
    for path, name in zip(paths, names, strict=True):
        path.write_bytes(name.encode().ljust(4000, b"\0"))
    trials = tuple(Trial("S", name, "-", is_bona_fide=True) for name in names)
    return CorpusPart("train", Protocol(folder / "protocol.txt", trials, ""), paths)


def _after_a_wait(question: Callable[[Path], object]) -> Callable[[Path], object]:
    def ask(path: Path) -> object:
        time.sleep(_WAIT_S)
        return question(path)

    return ask


def _median_s(part: CorpusPart) -> float:
    seconds = []
    for _ in range(REPEATS):
        before = time.perf_counter()
        asked.audio_identity([part], seed=1234)
        seconds.append(time.perf_counter() - before)
    return statistics.median(seconds)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
