"""What --precision bf16 does to scores: EER, number of distinct scores and order, beside fp32 with the same weights.

    OMP_NUM_THREADS=1 python -m benchmarks.precision [--database_path CORPUS] [--model_type NAME ...] [--batch_size N]

Each detector is trained for one epoch, in passing, and its evaluation set is scored twice by whole commands, with and
without bf16. Without --database_path the corpus is the demo's. Detectors with a front-end get the compact one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measuring import PROGRAM, machine_text, run_once
from models.names import COMPACT, DETECTOR_TYPES, FRONT_END_TYPES
from utils.scores.score_files import read_scores

PRECISIONS = ("fp32", "bf16")
LR = "1e-3"


def scores_of(precision: str, run: Path, shared: tuple[str, ...], folder: Path) -> tuple[float, np.ndarray]:
    """Score the evaluation set of the corpus; return the EER in percent and the scores, (trials,)."""
    output = folder / f"{run.name}.{precision}.txt"
    typed = ("--eval", "--model_path", str(run), "--eval_output", str(output), "--precision", precision, "--json")
    printed = run_once((*PROGRAM, *typed, *shared), folder).output
    return json.loads(printed[printed.index("{") :])["eer_percent"], read_scores(output).scores  # after the progress


def order_kept(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of the ranks of two sets of scores, 1 where their order is the same."""
    ranks = [np.argsort(np.argsort(scores, kind="stable"), kind="stable") for scores in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def main() -> None:
    """Train and score with each detector, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database_path", type=Path)
    parser.add_argument("--model_type", nargs="+", choices=DETECTOR_TYPES, default=list(DETECTOR_TYPES))
    parser.add_argument("--num_examples", type=int, default=64, help="training utterances")
    parser.add_argument("--batch_size", type=int, default=8)
    command = parser.parse_args()
    print(machine_text())
    shared: tuple[str, ...] = ("--batch_size", str(command.batch_size), "--num_workers", "0")
    if command.database_path:
        shared += ("--database_path", str(command.database_path.resolve()))
    print(f"{'detector':<20}{'trials':>8}{'EER fp32':>11}{'bf16':>9}{'distinct fp32':>16}{'bf16':>7}{'order kept':>13}")
    for model_type in command.model_type:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            of_model = ("--ssl_model", COMPACT) if model_type in FRONT_END_TYPES else ()
            training = ("--num_epochs", "1", "--lr", LR, "--num_examples", str(command.num_examples))
            run_once((*PROGRAM, "--model_type", model_type, *of_model, *training, *shared), folder)
            (run,) = (path for path in (folder / "models").iterdir() if path.is_dir())
            (full, fp32), (half, bf16) = (scores_of(precision, run, shared, folder) for precision in PRECISIONS)
            distinct = [len(np.unique(scores)) for scores in (fp32, bf16)]
            print(
                f"{model_type:<20}{len(fp32):>8}{full:>10.2f}%{half:>8.2f}%{distinct[0]:>16}{distinct[1]:>7}"
                f"{order_kept(fp32, bf16):>13.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
