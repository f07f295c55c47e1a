"""What --score costs for a minute and for an hour of audio: time and memory of whole commands.

    OMP_NUM_THREADS=1 python -m benchmarks.score_audio

The audio is noise in FLAC, 48 kHz, two channels, made for the purpose; the detector is `lcnn` after one epoch on 32
utterances of the demo corpus, whose cost does not depend on what it has learned.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.measuring import PROGRAM, machine_text, run_once

RATE_HZ = 48_000
MINUTES = (1, 60)


def write_audio(path: Path, minutes: int) -> None:
    """Write so many minutes of quiet stereo noise, a minute at a time."""
    generator = np.random.default_rng(1)
    with soundfile.SoundFile(path, "w", RATE_HZ, 2, format="FLAC") as file:
        for _ in range(minutes):
            file.write(0.05 * generator.standard_normal((60 * RATE_HZ, 2), dtype=np.float32))


def main() -> None:
    """Train in passing, then print a line for each length."""
    print(machine_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = ("--model_type", "lcnn", "--lr", "1e-3", "--num_epochs", "1", "--num_workers", "0", "--batch_size", "8")
        run_once((*PROGRAM, *flags, "--num_examples", "32"), folder)
        (run,) = (folder / "models").iterdir()
        print(f"{'whole commands':<34}{'wall':>10}{'processor':>11}{'peak memory':>13}")
        for minutes in MINUTES:
            path = folder / f"{minutes}.flac"
            write_audio(path, minutes)
            cost = run_once((*PROGRAM, "--score", str(path), "--model_path", str(run)), folder)
            title = f"  --score, {minutes} min of 48 kHz stereo"
            print(f"{title:<34}{cost.seconds:8.1f} s{cost.cpu_seconds:9.1f} s{cost.peak_mib:9.0f} MiB")


if __name__ == "__main__":
    main()
