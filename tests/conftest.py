"""What several test files need: a small corpus on disk, and the program as a user runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

# The tests are of the CPU, also where there is a GPU: they fork, which CUDA does not survive, and compare bits of the
# CPU. `make test-gpu` runs those of a GPU. This goes before torch is imported.
if "TEST_ON_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

from main import main
from tests.small_disk import disk_that_breaks, small_disk, tiny_disk  # noqa: F401  (fixtures)

# A shell starts its background jobs with SIGINT ignored, and a program keeps that; the tests send it for real.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent
RATE = 16_000
# Two epochs of three steps and a validation, in about two seconds on one core.
SMALL_RUN = ["--ssl_model", "compact", "--batch_size", "4", "--lr", "1e-3", "--num_workers", "0"]


def write_corpus(folder: Path, train: int = 12, dev: int = 8) -> Path:
    """Write a corpus in ASVspoof 2019 LA layout: harmonic tones as bona fide, the same with flat noise as spoof."""
    protocols = folder / "ASVspoof2019_LA_cm_protocols"
    protocols.mkdir(parents=True)
    for part, letter, count, ending in (("train", "T", train, "trn"), ("dev", "D", dev, "trl")):
        audio = folder / f"ASVspoof2019_LA_{part}" / "flac"
        audio.mkdir(parents=True)
        lines = []
        for number in range(count):
            generator = np.random.default_rng([ord(letter), number])
            is_bona_fide = number % 2 == 0
            name = f"LA_{letter}_{number:07d}"
            soundfile.write(audio / f"{name}.flac", _waveform(generator, is_bona_fide), RATE)
            lines.append(
                f"S{number % 3} {name} - {'-' if is_bona_fide else 'A01'} {'bonafide' if is_bona_fide else 'spoof'}"
            )
        (protocols / f"ASVspoof2019.LA.cm.{part}.{ending}.txt").write_text("\n".join(lines) + "\n")
    return folder


def _waveform(generator: np.random.Generator, is_bona_fide: bool) -> np.ndarray:
    time = np.arange(int(RATE * generator.uniform(0.5, 5.0))) / RATE
    pitch = generator.uniform(90, 220)
    voice = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    noise = generator.standard_normal(time.size) * (0.02 if is_bona_fide else 0.3)
    return 0.1 * (voice + noise)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus that every test may read."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to run in, so that models/ and logs/ are made there."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def trained_run(folder: Path, corpus: Path, num_epochs: int) -> Path:
    """Train a small run in `folder` and return the run folder."""
    with contextlib.chdir(folder):
        assert main(["--database_path", str(corpus), *SMALL_RUN, "--num_epochs", str(num_epochs)]) == 0
    (run_folder,) = (folder / "models").iterdir()
    return run_folder


def command_line(*arguments: str | Path) -> list[str]:
    """Return the command a user types, with this interpreter."""
    return [sys.executable, str(REPOSITORY / "main.py"), *map(str, arguments)]


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(workplace: Path) -> Run:
    """Run the program as a process of its own, in the workplace."""

    def run_program(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_line(*arguments),
            cwd=workplace,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run_program


DuringStep = Callable[[dict[int, Callable[[], object]]], None]


@pytest.fixture
def during_step(monkeypatch: pytest.MonkeyPatch) -> DuringStep:
    """Do something right after given training steps, counted from the start."""

    def arrange(events: dict[int, Callable[[], object]]) -> None:
        from training.loop.step import take_step  # noqa: PLC0415  (torch, which few test files need)

        original, seen = take_step, [0]

        def watched(*arguments: Any) -> Any:
            result = original(*arguments)
            seen[0] += 1
            events.get(seen[0], lambda: None)()
            return result

        monkeypatch.setattr("training.loop.trainer.take_step", watched)

    return arrange
