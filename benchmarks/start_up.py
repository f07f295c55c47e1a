"""How long the program takes to answer, and to reach its first training step, beside `import torch` as a yardstick.

    python -m benchmarks.start_up

Measures whole processes in a temporary folder, with the demo corpus (made before, if it is not there yet). The run
that trains is stopped right after its first optimizer step and names the slow libraries it had imported by then.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import PROGRAM, REPOSITORY, machine_text, run_once, run_repeatedly

REPEATS = 5
SLOW_LIBRARIES = ("torch", "torchvision", "transformers", "tensorboard", "matplotlib", "sklearn", "scipy", "soundfile")
TRAINING = ("--database_path", "demo", "--lr", "1e-3", "--num_epochs", "1")
# Runs main.py's `main` as the command line does, until the first training step has returned.
_UNTIL_THE_FIRST_STEP = f"""
import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
import training.loop.trainer

step = training.loop.trainer.take_step

def step_and_leave(*arguments):
    step(*arguments)
    print("imported:", *(name for name in {SLOW_LIBRARIES!r} if name in sys.modules), flush=True)
    os._exit(0)

training.loop.trainer.take_step = step_and_leave
from main import main
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class _Row:
    title: str
    command: Sequence[str]
    exit_code: int = 0


def _rows() -> list[_Row]:
    python = sys.executable
    return [
        _Row("python -c pass", [python, "-c", "pass"]),
        _Row('python -c "import torch"', [python, "-c", "import torch"]),
        _Row("main.py --help", [*PROGRAM, "--help"]),
        _Row("main.py --resume --fresh_start (error)", [*PROGRAM, "--resume", "--fresh_start"], exit_code=2),
        _Row("main.py --list_checkpoints (1 epoch)", [*PROGRAM, "--list_checkpoints", *TRAINING]),
        _Row("main.py, first training step", [python, "-c", _UNTIL_THE_FIRST_STEP, *TRAINING, "--comment", "step"]),
    ]


def main() -> None:
    """Train one epoch, so that there is something to list, then measure and print each row."""
    print(machine_text())
    print(f"{f'whole processes, median of {REPEATS}':<42}{'wall':>8}  {'processor':>9}  {'peak memory':>11}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_once([*PROGRAM, *TRAINING], folder)
        for row in _rows():
            cost = run_repeatedly(row.command, folder, REPEATS, row.exit_code)
            figures = f"{cost.seconds:6.2f} s  {cost.cpu_seconds:7.2f} s  {cost.peak_mib:7.0f} MiB"
            print(f"  {row.title:<40}{figures}", flush=True)
    print(cost.output.rstrip().splitlines()[-1])


if __name__ == "__main__":
    main()
