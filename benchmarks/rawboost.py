"""What RawBoost costs per utterance on one core, and whether it draws what the published code draws.

    OMP_NUM_THREADS=1 python -m benchmarks.rawboost [--published FOLDER] [--corpus FOLDER] [--utterances N]

FOLDER of --published holds RawBoost.py of github.com/TakHemlata/RawBoost-antispoofing; without it only our own figures
are printed. Its algorithms run in the same process, turn by turn with ours on the same whole utterances of the corpus
(`demo`, unless told otherwise), with the published defaults. In memory its `randRange` is replaced by one that returns
a plain number, without which NumPy 2.4 and later refuse the code.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import signal

from benchmarks.measuring import machine_text
from utils.audio.rawboost import RawBoost
from utils.audio.waveforms import SAMPLE_RATE_HZ, Waveform, read_waveform
from utils.corpora import find_corpus
from utils.corpora.demo_corpus import demo_corpus_folder
from utils.seeding import generator_at

Samples = npt.NDArray[np.float64]
Augment = Callable[[int, Waveform, int], npt.NDArray[Any]]
ALGORITHMS = range(1, 9)
REPEATS = 3


def ours(algorithm: int, waveform: Waveform, number: int) -> npt.NDArray[Any]:
    """Augment one utterance as training does, its generator made anew."""
    return RawBoost(algorithm)(waveform, generator_at("benchmark", 1, algorithm, number))


def load_published(folder: Path) -> Augment:
    """Return the published algorithms, with their defaults; they draw from NumPy's global generator."""
    spec = importlib.util.spec_from_file_location("published_rawboost", folder / "RawBoost.py")
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def draw(low: float, high: float, whole: int) -> float:
        drawn = np.random.uniform(low, high)
        return int(drawn) if whole else drawn

    module.randRange = draw
    filters = (5, 20, 8000, 100, 1000, 10, 100, 0, 0)

    def convolutive(x: Any) -> Any:
        return module.LnL_convolutive_noise(x, 5, *filters, 5, 20, SAMPLE_RATE_HZ)

    def impulsive(x: Any) -> Any:
        return module.ISD_additive_noise(x, 10, 2)

    def coloured(x: Any) -> Any:
        return module.SSI_additive_noise(x, 10, 40, *filters, SAMPLE_RATE_HZ)

    series: dict[int, tuple[Callable[[Any], Any], ...]] = {
        1: (convolutive,),
        2: (impulsive,),
        3: (coloured,),
        4: (convolutive, impulsive, coloured),
        5: (convolutive, impulsive),
        6: (convolutive, coloured),
        7: (impulsive, coloured),
    }

    def augment(algorithm: int, waveform: Waveform, number: int) -> npt.NDArray[Any]:
        if number == 0:
            np.random.seed(1)
        if algorithm == 8:
            return np.asarray(module.normWav(convolutive(waveform) + impulsive(waveform), 0))
        x: Any = waveform
        for noise in series[algorithm]:
            x = noise(x)
        return np.asarray(x)

    return augment


def milliseconds(augment: Augment, algorithm: int, waveforms: Sequence[Waveform]) -> float:
    """Return the processor time per utterance: other programs on the machine then count less."""
    before = time.process_time()
    for number, waveform in enumerate(waveforms):
        augment(algorithm, waveform, number)
    return (time.process_time() - before) / len(waveforms) * 1e3


def measure(implementations: dict[str, Augment], waveforms: Sequence[Waveform]) -> None:
    """Print processor milliseconds per utterance, the median of some rounds in which the implementations take turns."""
    print(f"processor ms per utterance{'':<5}" + "".join(f"{name:>12}" for name in implementations) + f"{'ratio':>9}")
    for algorithm in ALGORITHMS:
        rounds = [
            [milliseconds(augment, algorithm, waveforms) for augment in implementations.values()]
            for _ in range(REPEATS + 1)
        ][1:]  # the first one warms up
        costs = [statistics.median(column) for column in zip(*rounds, strict=True)]
        ratio = f"{costs[-1] / costs[0]:8.1f}x" if len(costs) > 1 else ""
        print(f"  algorithm {algorithm}{'':<18}" + "".join(f"{cost:12.2f}" for cost in costs) + ratio)


def compare(implementations: dict[str, Augment], waveforms: Sequence[Waveform]) -> None:
    """Print what is drawn, each figure over all utterances."""
    figures = {name: _figures(augment, waveforms) for name, augment in implementations.items()}
    print(f"{'statistics over all utterances':<56}" + "".join(f"{name:>12}" for name in figures))
    for title in next(iter(figures.values())):
        print(f"  {title:<54}" + "".join(f"{of_one[title]:12.3f}" for of_one in figures.values()))
    if len(implementations) > 1:
        _compare_spectra(implementations, waveforms)


def _figures(augment: Augment, waveforms: Sequence[Waveform]) -> dict[str, float]:
    peaks = [float(np.abs(augment(5, waveform, number)).max()) for number, waveform in enumerate(waveforms)]
    percents, factors = _impulses(augment, waveforms)
    ratios = _ratios_db(augment, waveforms)
    return {
        "algorithm 2: changed samples, mean %": float(np.mean(percents)),
        "algorithm 2: changed samples, standard deviation %": float(np.std(percents)),
        "algorithm 2: relative change, standard deviation": float(np.std(factors)),
        "algorithm 2: relative change, greatest": float(np.abs(factors).max()),
        "algorithm 3: signal-to-noise ratio, mean dB": float(np.mean(ratios)),
        "algorithm 3: signal-to-noise ratio, standard deviation": float(np.std(ratios)),
        "algorithm 3: signal-to-noise ratio, least": min(ratios),
        "algorithm 3: signal-to-noise ratio, greatest": max(ratios),
        "algorithm 5: peak, mean": statistics.mean(peaks),
        "algorithm 5: peak, standard deviation": statistics.pstdev(peaks),
    }


def _impulses(augment: Augment, waveforms: Sequence[Waveform]) -> tuple[list[float], Samples]:
    percents, factors = [], []
    for number, waveform in enumerate(waveforms):
        halved = waveform / np.float32(4 * np.abs(waveform).max())  # no change brings it above 1: nothing is scaled
        audible = np.abs(halved) > 1e-6
        change = augment(2, halved, number)[audible].astype(np.float64) / halved[audible] - 1
        changed = np.abs(change) > 1e-6
        percents.append(100 * float(changed.mean()))
        factors.append(change[changed])
    return percents, np.concatenate(factors)


def _ratios_db(augment: Augment, waveforms: Sequence[Waveform]) -> list[float]:
    ratios = []
    for number, waveform in enumerate(waveforms):
        noise = augment(3, waveform, number).astype(np.float64) - waveform
        ratios.append(float(20 * np.log10(np.linalg.norm(waveform) / np.linalg.norm(noise))))
    return ratios


def _compare_spectra(implementations: dict[str, Augment], waveforms: Sequence[Waveform]) -> None:
    """Print how far mean long-term spectra lie apart, beside how far two halves of the same implementation do."""
    print(f"{'mean long-term spectra, difference in dB (root mean square)':<62}{'ours/published':>14}{'ours/ours':>12}")
    for algorithm in (1, 3, 4, 5):
        one, other = (_spectrum_db(augment, algorithm, waveforms, 0) for augment in implementations.values())
        again = _spectrum_db(ours, algorithm, waveforms, len(waveforms))
        print(f"  algorithm {algorithm:<50}{_rms(one - other):14.3f}{_rms(one - again):12.3f}")


def _spectrum_db(augment: Augment, algorithm: int, waveforms: Sequence[Waveform], first: int) -> Samples:
    """Return the mean over utterances of the change of the spectrum in dB, 129 frequencies."""
    changes = []
    for number, waveform in enumerate(waveforms, start=first):
        before, after = (signal.welch(x, nperseg=256)[1] for x in (waveform, augment(algorithm, waveform, number)))
        changes.append(10 * np.log10((after + 1e-12) / (before + 1e-12)))
    return np.asarray(np.mean(changes, axis=0))


def _rms(values: Samples) -> float:
    return float(np.sqrt(np.mean(values**2)))


def main(published: Path | None, corpus: Path | None, num_utterances: int) -> None:
    """Measure and compare on utterances spread evenly over the training part."""
    print(machine_text())
    part = find_corpus(corpus or demo_corpus_folder()).train
    paths = part.audio_paths[:: max(1, len(part) // num_utterances)][:num_utterances]
    waveforms = [read_waveform(path) for path in paths]
    seconds = statistics.mean(waveform.size for waveform in waveforms) / SAMPLE_RATE_HZ
    print(f"{len(waveforms)} whole utterances, {seconds:.2f} s on average; NumPy {np.__version__}")
    implementations: dict[str, Augment] = {"ours": ours}
    if published:
        implementations["published"] = load_published(published)
    measure(implementations, waveforms)
    compare(implementations, waveforms)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="RawBoost: cost and statistics")
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="folder with the published RawBoost.py")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="an ASVspoof 2019 LA tree (default: demo)")
    parser.add_argument("--utterances", type=int, default=300, metavar="N", help="how many (default: 300)")
    typed = parser.parse_args()
    main(typed.published, typed.corpus, typed.utterances)
