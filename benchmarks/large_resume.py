"""A training of XLS-R's size that is killed at drawn moments ends with the bits of one that was left alone.

    python -m benchmarks.large_resume [FOLDER] [--kills N] [--device cuda] [--precision bf16] [--layers N] [FLAG ...]

g3_heatmap on XLS-R 300M with random weights, written as transformers saves a model into FOLDER (default: a temporary
folder; 20 GB are needed) and given as --ssl_model, is trained for two epochs of 12 steps on the demo corpus, with a
save every sixth step and RawBoost. Then the same command is killed by SIGKILL at a moment drawn from the seconds that
it took, and started again with --auto_resume, N times; then it is left to end. Compared are the last checkpoints, all
but dates and durations. With --layers the front-end is smaller. A FLAG is one of the program's.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.listing import XLS_R_300M_CONFIG
from benchmarks.measuring import PROGRAM, machine_text
from tests.comparing import bits, differences

SEED, EPOCHS = 20261126, 2
LAST = f"checkpoint_epoch_{EPOCHS}.pth"
TRAINING_BEGAN = "Training "


@dataclass(frozen=True)
class Life:
    """One start of the command: its exit code, seconds until it trained (None: it never did) and to its end."""

    code: int
    seconds_to_train: float | None
    seconds: float
    said: str


def live(command: list[str], folder: Path, killed_after_s: float | None = None) -> Life:
    """Run the command in `folder`, killed with all its processes so long after it began to train."""
    folder.mkdir(exist_ok=True)
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    said, to_train = list[str](), None
    for line in process.stdout:
        said.append(line)
        if line.startswith(TRAINING_BEGAN) and to_train is None:
            to_train = time.monotonic() - began
            if killed_after_s is not None:
                threading.Timer(killed_after_s, os.killpg, (process.pid, signal.SIGKILL)).start()
    return Life(process.wait(), to_train, time.monotonic() - began, "".join(said))


def main() -> int:
    """Train, kill, compare; return 1 where a bit differs or a life ends otherwise than it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--layers", type=int, default=XLS_R_300M_CONFIG["num_hidden_layers"])
    asked, flags = parser.parse_known_args()
    print(machine_text(with_gpu=asked.device == "cuda"), flush=True)
    with tempfile.TemporaryDirectory(dir=asked.folder) as made:
        place = Path(made)
        _write_front_end(place / "xls-r", asked.layers)
        command = [*PROGRAM, "--ssl_model", str(place / "xls-r"), "--batch_size", "14", "--num_epochs", str(EPOCHS)]
        command += ["--lr", "1e-5", "--algo", "5", "--save_interval", "6", "--keep_last_n", "1", "--auto_resume"]
        command += ["--device", asked.device, "--precision", asked.precision, *flags]
        undisturbed = live(command, place / "undisturbed")
        if undisturbed.code:
            print(undisturbed.said)
            return 1
        assert undisturbed.seconds_to_train is not None
        training_s = undisturbed.seconds - undisturbed.seconds_to_train
        print(f"left alone: {undisturbed.seconds_to_train:.1f} s until it trains, then {training_s:.1f} s", flush=True)
        _print_costs(place / "undisturbed")
        dice = random.Random(SEED)
        killed, code = 0, 0
        for number in range(asked.kills + 1):
            moment = dice.uniform(0, training_s) if number < asked.kills else None
            life = live(command, place / "killed", moment)
            code, was_killed = life.code, life.code == -signal.SIGKILL
            killed += was_killed
            went_on = next((line for line in life.said.splitlines() if line.startswith("Plan:")), "")
            print(
                f"  {'killed' if was_killed else f'exit code {code}'} after {life.seconds:.1f} s; {went_on}", flush=True
            )
            if not was_killed:
                break
        if code:
            print(life.said)
            return 1
        one, other = (next((place / name / "models").iterdir()) / LAST for name in ("undisturbed", "killed"))
        found = differences(bits(one), bits(other))
        size = one.stat().st_size / 1e9
        print(f"{killed} kills; {LAST}, {size:.1f} GB: {'the same bits' if not found else f'{len(found)} differences'}")
        print("\n".join(found[:10]))
        return 1 if found else 0


def _write_front_end(folder: Path, layers: int) -> None:
    """Write it in a process of its own, whose memory is then free."""
    config = {**XLS_R_300M_CONFIG, "num_hidden_layers": layers}
    code = (
        "import torch, transformers; torch.manual_seed(1); "
        f"config = transformers.AutoConfig.for_model(**{config!r}); "
        f"transformers.AutoModel.from_config(config).save_pretrained({str(folder)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def _print_costs(folder: Path) -> None:
    """Print what the log has of the steps and of what saving held up."""
    for path in folder.glob("models/*/training_log.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                print(f"  epoch {row['epoch']}: {row['step_ms']} ms a step, saving held up {row['blocked_seconds']} s")


if __name__ == "__main__":
    sys.exit(main())
