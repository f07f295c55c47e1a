"""Do spoofs of one's own speech help a detector? EER on unseen systems with collected spoofs, with own ones, with both.

    python main.py --make_spoofs SPOOFS --database_path CORPUS --vocoders griffin_lim world lpc sinusoidal VOCODER
    python -m benchmarks.own_spoofs CORPUS SPOOFS FOLDER [--detectors NAME...] [--ways WAY...] [--seeds N...]

Each detector is trained in some ways, which have the bona fide speech of CORPUS in common, with every seed:

* collected: on CORPUS as it is;
* own: on SPOOFS as it is;
* both: on that, and the spoofs of CORPUS;
* pairs: on both, every spoof of SPOOFS in one batch with its source (`--pair_batches`).

All else is alike: the settings, the number of steps as nearly as whole epochs allow, and the dev part, that of CORPUS,
by which nothing is chosen: the last weights are scored. They score the evaluation part of CORPUS, whose systems are in
no train part. Printed are the EER of each seed and their mean, and the mean less that of the first way. The intervals
hold 95 % of 2,000 draws of the trials with replacement, of each class as many as there are; all seeds and ways get the
same draws. They do not say what other seeds would bring: of that, the figures of each seed say a little.

Trainings lie in FOLDER, and one that was stopped goes on; what is scored already is not scored again.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import PROGRAM, machine_text, run_once
from training.spoofs.layout import BONA_FIDE, COLUMNS, NO_SOURCE
from utils.corpora import CorpusPart, find_corpus
from utils.scores.metrics import equal_error_rate
from utils.scores.score_files import read_scores

DRAWS = 2000
BATCH_SIZE = 12
SETTINGS = (
    *("--lr", "1e-3", "--warmup_steps", "50", "--scheduler", "cosine", "--crop", "random", "--save_best_only"),
    *("--batch_size", str(BATCH_SIZE)),
)
WAYS: Mapping[str, tuple[str, Sequence[str]]] = {
    "collected": ("collected", ()),
    "own": ("own", ()),
    "both": ("both", ()),
    "pairs": ("both", ("--pair_batches",)),
}
"""The train part of each way, and its flags."""
Rows = Sequence[Mapping[str, str]]
Scores = NDArray[np.float64]


def rows_of(part: CorpusPart, corpus: Path) -> Rows:
    """Return the trials of a part of CORPUS as rows of a table that lies beside a link to it."""
    return [
        {
            "path": str(Path("corpus", os.path.relpath(path, corpus))),
            "label": BONA_FIDE if trial.is_bona_fide else "spoof",
            "attack": trial.attack,
            "speaker": trial.speaker,
            "source": NO_SOURCE,
        }
        for trial, path in zip(part.protocol.trials, part.audio_paths, strict=True)
    ]


def rows_of_own(spoofs: Path) -> Rows:
    """Return the train part of SPOOFS as rows of a table that lies beside a link to it."""
    with (spoofs / "train.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    return [
        {**row, **{name: f"spoofs/{row[name]}" for name in ("path", "source") if row[name] != NO_SOURCE}}
        for row in rows
    ]


def write_corpus(folder: Path, links: Mapping[str, Path], train: Rows, dev: Rows) -> None:
    """Write a corpus of two tables, beside links to where its audio lies, unless it is there."""
    if folder.is_dir():
        return
    made = folder.with_name(f"{folder.name}_being_written")
    shutil.rmtree(made, ignore_errors=True)  # of a call that was killed
    made.mkdir(parents=True)
    for name, target in links.items():
        (made / name).symlink_to(target.absolute())
    for name, rows in (("train", train), ("dev", dev)):
        with (made / f"{name}.csv").open("w", encoding="utf-8", newline="") as table:
            writer = csv.DictWriter(table, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    made.rename(folder)


def scored(corpus: Path, flags: Sequence[str], run: Path, evaluated: Path) -> tuple[Scores, NDArray[np.bool_]]:
    """Train in `run`, score the evaluation part of `evaluated` with the last weights, and return scores and truth."""
    run.mkdir(parents=True, exist_ok=True)
    scores = run / "scores.txt"
    if not scores.is_file():
        run_once([*PROGRAM, "--database_path", str(corpus.absolute()), *flags, "--auto_resume"], run)
        (last,) = run.glob("models/*/last_checkpoint.pth")
        where = ["--database_path", str(evaluated.absolute()), "--eval_output", str(scores.absolute())]
        run_once([*PROGRAM, "--eval", "--model_path", str(last.absolute()), *where], run)
    read = read_scores(scores)
    assert read.own_keys is not None, f"{scores} holds no labels"
    truth = dict(zip(read.own_keys.utterances, read.own_keys.is_bona_fide, strict=True))
    return read.scores, np.array([truth[name] for name in read.utterances])


def mean_eer(of_seeds: Iterable[Scores], truth: NDArray[np.bool_], drawn: NDArray[np.int64]) -> float:
    """Return the mean EER of all seeds on drawn trials, in percent."""
    return fmean(equal_error_rate(scores[drawn], truth[drawn]).eer_percent for scores in of_seeds)


def interval(values: Scores) -> str:
    """Return the middle 95 % of some values."""
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{low:6.2f} to {high:6.2f}"


def report(detector: str, of_ways: Mapping[str, Sequence[Scores]], truth: NDArray[np.bool_]) -> None:
    """Print the figures of one detector."""
    generator = np.random.default_rng(0)
    classes = [np.flatnonzero(truth), np.flatnonzero(~truth)]
    draws = [np.concatenate([generator.choice(one, len(one)) for one in classes]) for _ in range(DRAWS)]
    everything = np.arange(len(truth))
    drawn = {name: np.array([mean_eer(seeds, truth, draw) for draw in draws]) for name, seeds in of_ways.items()}
    first = next(iter(of_ways))
    for name, seeds in of_ways.items():
        each = ", ".join(f"{mean_eer([one], truth, everything):5.2f}" for one in seeds)
        mean = mean_eer(seeds, truth, everything)
        less = mean - mean_eer(of_ways[first], truth, everything)
        compared = "" if name == first else f"  {less:+6.2f}  {interval(drawn[name] - drawn[first])}"
        print(f"{detector:22} {name:10} {each}   {mean:6.2f}  {interval(drawn[name])}{compared}", flush=True)


def main() -> None:
    """Train all detectors in all ways, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("spoofs", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detectors", nargs="+", default=["lcnn", "spectrogram_resnet18"])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=560)
    asked = parser.parse_args()
    print(machine_text())

    found = find_corpus(asked.corpus)
    collected, dev = (rows_of(part, found.folder) for part in (found.train, found.dev))
    own = rows_of_own(asked.spoofs)
    parts = {"collected": collected, "own": own, "both": [*own, *(row for row in collected if row["label"] == "spoof")]}
    for name, train in parts.items():
        write_corpus(asked.folder / name, {"corpus": found.folder, "spoofs": asked.spoofs}, train, dev)
        num_bona_fide = sum(row["label"] == BONA_FIDE for row in train)
        print(
            f"{name}: {num_bona_fide} bona fide and {len(train) - num_bona_fide} spoofed utterances, "
            f"{epochs_of(train, asked.steps)} epochs of about {round(len(train) / BATCH_SIZE)} steps"
        )

    print(f"{'detector':22} {'spoofs':10} EER % of each seed    mean  95 %              less the first, 95 %")
    for detector in asked.detectors:
        of_ways: dict[str, list[Scores]] = {way: [] for way in asked.ways}
        for seed in asked.seeds:
            for way in asked.ways:
                name, flags = WAYS[way]
                epochs = epochs_of(parts[name], asked.steps)
                words = ["--model_type", detector, *SETTINGS, "--num_epochs", str(epochs), "--seed", str(seed), *flags]
                run = asked.folder / "runs" / f"{detector}_{way}_{seed}"
                scores, truth = scored(asked.folder / name, words, run, asked.corpus)
                of_ways[way].append(scores)
        report(detector, of_ways, truth)


def epochs_of(train: Rows, steps: int) -> int:
    """Return how many whole epochs are nearest to a number of steps."""
    return max(1, round(steps * BATCH_SIZE / len(train)))


if __name__ == "__main__":
    main()
