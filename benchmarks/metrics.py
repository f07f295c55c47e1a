"""What measuring 611,829 scores costs, the size of ASVspoof 2021 DF, beside the EER read off scikit-learn's ROC curve.

    python -m benchmarks.metrics

Draws seeded scores of a detector with an EER near 2 %, 22,617 of them bona fide. It times each figure, then all,
then the two ways in which an EER is commonly taken from sklearn.metrics.roc_curve: where the interpolated curve crosses
the diagonal (scipy's brentq and interp1d), and the false alarm rate where the two rates are closest. It says how much
those EERs differ, here and on parts of the size of smaller test sets. Last, the whole command on files of that size.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_curve  # type: ignore[import-untyped,unused-ignore]

from benchmarks.measuring import PROGRAM, machine_text, run_repeatedly
from utils.scores.calibration import cllr, fit_linear_calibration
from utils.scores.detection_cost import actual_dcf, min_dcf
from utils.scores.error_curve import ScoredTrials, error_curve
from utils.scores.metrics import equal_error_rate, equal_error_rate_of
from utils.scores.tandem_cost import DEFAULT_ASV_RATES, min_tdcf_legacy, min_tdcf_revised

NUM_SCORES, NUM_BONA_FIDE = 611_829, 22_617
SEPARATION = 4.1  # of two normal distributions with deviation 1, in deviations
REPEATS = 7
PARTS = (611_829, 71_237, 10_000, 1_000)
COMMAND_REPEATS = 3


def draw_scores() -> tuple[np.ndarray, np.ndarray]:
    """Return the scores and which of them are bona fide, shuffled."""
    generator = np.random.default_rng(2021)
    is_bona_fide = generator.permutation(NUM_SCORES) < NUM_BONA_FIDE
    return generator.normal(np.where(is_bona_fide, SEPARATION, 0.0)), is_bona_fide


def interpolated_eer_percent(scores: np.ndarray, is_bona_fide: np.ndarray) -> float:
    """Return where scikit-learn's ROC curve crosses the diagonal."""
    false_alarm_rate, hit_rate, _ = roc_curve(is_bona_fide, scores)
    curve = interp1d(false_alarm_rate, hit_rate)
    return 100 * float(brentq(lambda rate: 1.0 - rate - float(curve(rate)), 0.0, 1.0))


def nearest_eer_percent(scores: np.ndarray, is_bona_fide: np.ndarray) -> float:
    """Return the false alarm rate of scikit-learn's ROC curve where it is closest to the miss rate."""
    false_alarm_rate, hit_rate, _ = roc_curve(is_bona_fide, scores)
    return 100 * float(false_alarm_rate[np.argmin(np.abs(1 - hit_rate - false_alarm_rate))])


def median_seconds(call: Callable[[], object]) -> float:
    """Call once unmeasured, then return the median wall time of REPEATS calls."""
    call()
    seconds = []
    for _ in range(REPEATS):
        before = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - before)
    return statistics.median(seconds)


def time_figures(scores: np.ndarray, is_bona_fide: np.ndarray) -> None:
    """Print what each figure costs, all of them, and the alternatives."""
    trials = ScoredTrials.of(scores, is_bona_fide)
    curve = error_curve(trials)

    def everything() -> None:
        found = ScoredTrials.of(scores, is_bona_fide)
        on = error_curve(found)
        equal_error_rate_of(on)
        min_tdcf_legacy(on, DEFAULT_ASV_RATES)
        min_tdcf_revised(on, DEFAULT_ASV_RATES)
        min_dcf(on)
        actual_dcf(found)
        cllr(found)

    rows: list[tuple[str, Callable[[], object]]] = [
        ("checks and division by class", lambda: ScoredTrials.of(scores, is_bona_fide)),
        ("error curve (the sort)", lambda: error_curve(trials)),
        ("EER, on the curve", lambda: equal_error_rate_of(curve)),
        ("min t-DCF legacy, on the curve", lambda: min_tdcf_legacy(curve, DEFAULT_ASV_RATES)),
        ("min t-DCF revised, on the curve", lambda: min_tdcf_revised(curve, DEFAULT_ASV_RATES)),
        ("minDCF, on the curve", lambda: min_dcf(curve)),
        ("actDCF", lambda: actual_dcf(trials)),
        ("Cllr", lambda: cllr(trials)),
        ("EER and all others, from the scores", everything),
        ("EER alone, from the scores", lambda: equal_error_rate(scores, is_bona_fide)),
        ("scikit-learn roc_curve, interpolated EER", lambda: interpolated_eer_percent(scores, is_bona_fide)),
        ("scikit-learn roc_curve, nearest EER", lambda: nearest_eer_percent(scores, is_bona_fide)),
        ("linear calibration, fitted", lambda: fit_linear_calibration(scores, is_bona_fide)),
    ]
    print(f"{scores.size:,} scores, median of {REPEATS}")
    for title, call in rows:
        print(f"  {title:<42}{median_seconds(call) * 1000:9.1f} ms")


def compare_eers(scores: np.ndarray, is_bona_fide: np.ndarray) -> None:
    """Print the official EER and the two others on parts of the scores."""
    print(f"{'EER % of the first':>22}{'official':>12}{'interpolated':>14}{'nearest':>12}")
    for size in PARTS:
        part = scores[:size], is_bona_fide[:size]
        official = equal_error_rate(*part).eer_percent
        others = interpolated_eer_percent(*part), nearest_eer_percent(*part)
        print(
            f"{size:>22,}{official:>12.6f}"
            + "".join(f"{other:>{w}.6f}" for other, w in zip(others, (14, 12), strict=True))
        )
        print(
            f"{'difference':>22}{'':>12}"
            + "".join(f"{other - official:>+{w}.6f}" for other, w in zip(others, (14, 12), strict=True))
        )


def time_command(scores: np.ndarray, is_bona_fide: np.ndarray) -> None:
    """Print what the whole command costs, reading a score file and keys of 13 columns included."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "scores.txt").open("w") as score_file, (folder / "keys.txt").open("w") as key_file:
            for number, (score, bona_fide) in enumerate(zip(scores.tolist(), is_bona_fide.tolist(), strict=True)):
                truth = "bonafide bonafide" if bona_fide else f"A{number % 100:02d} spoof"
                score_file.write(f"DF_E_{number:07d} {score}\n")
                key_file.write(f"LA_0001 DF_E_{number:07d} nocodec asvspoof {truth} notrim eval unknown - - - -\n")
        command = [*PROGRAM, "--metrics", "scores.txt", "--keys", "keys.txt"]
        cost = run_repeatedly(command, folder, COMMAND_REPEATS)
    print(
        f"main.py --metrics with tables of 100 attacks, whole process, median of {COMMAND_REPEATS}: "
        f"{cost.seconds:.2f} s wall, {cost.cpu_seconds:.2f} s processor, {cost.peak_mib:.0f} MiB"
    )


def main() -> int:
    """Draw, measure, print."""
    print(f"{machine_text()}; NumPy {np.__version__}")
    drawn = draw_scores()
    time_figures(*drawn)
    compare_eers(*drawn)
    time_command(*drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
