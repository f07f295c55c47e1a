"""Shows that any number of processes gives the bits of one, and what adding gradients between them costs.

    python -m benchmarks.ranks bits [NAME ...]     # 1, 2, 4 and 8 processes: one digest for each network
    python -m benchmarks.ranks cost [NAME ...]     # 2 processes, beside DistributedDataParallel and beside no exchange

Processes are forks of this one, on gloo, with one thread each. `bits` trains an epoch of a small corpus in steps of
eight batches of two (aasist_l and hifigan: of one), of which the last has four, and scores a part by --eval, or copies
its speech. The digest is that of all checkpoints (weights, moments, statistics of batch norm, vectors of spectral norm,
history, scores of validation, random states) and of the file with the scores. `cost` takes steps in turn, one of each
way: medians of the slower process, and of the ratios of a round.
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import barrier
from torch.nn.parallel import DistributedDataParallel

from benchmarks.listing import XLS_R_300M_CONFIG
from benchmarks.measuring import machine_text
from models.build import create_detector, rebuild_detector
from models.detector import Detector, DetectorSettings
from tests import launched, several
from tests.comparing import bits
from tests.conftest import write_corpus
from tests.launched import training
from tests.several import on_processes
from training.checkpoints.history import History, UnfinishedEpoch
from training.data.loading import Batch
from training.data.shares import Share, StepBatches
from training.loop.exchange import Exchange
from training.loop.step import take_step
from training.settings.options import Options
from training.settings.tasks import DETECTION
from training.state.train_state import TrainState
from training.tasks.detection import DetectionTask
from training.tasks.losses import weighted_cross_entropy
from training.tasks.schedule import make_schedule
from utils.ranks import Ranks

NUMBERS = (1, 2, 4, 8)
HANGS_AFTER_S = 500.0
STEPS = ("--batch_size", "2", "--accumulate_steps", "8", "--num_workers", "0", "--num_epochs", "1", "--lr", "1e-3")
NUM_TRAIN, NUM_DEV = 24, 12
_G3 = ("--model_type", "g3_heatmap", "--ssl_model", "compact", "--use_contrastive", "--algo", "5")
RUNS = {
    "g3_heatmap, fp32": _G3,
    "g3_heatmap, bf16": (*_G3, "--precision", "bf16"),
    "aasist_l": ("--model_type", "aasist_l", "--batch_size", "1", "--num_examples", "12"),
    "lcnn": ("--model_type", "lcnn", "--swa"),
    "spectrogram_resnet18": ("--model_type", "spectrogram_resnet18"),
    "hifigan, small": ("--model_type", "hifigan", "--vocoder_size", "small", "--batch_size", "1", "--lr", "2e-4"),
}
XLS_R_LAYERS = 6
ROUNDS = 5
COSTS: dict[str, tuple[Callable[[], Detector], int, int]] = {  # the detector, utterances a process, samples of each
    f"XLS-R, {XLS_R_LAYERS} of its 24 layers": (
        lambda: rebuild_detector(DetectorSettings(), XLS_R_300M_CONFIG | {"num_hidden_layers": XLS_R_LAYERS}),
        1,
        64_600,
    ),
    "spectrogram_resnet18": (lambda: create_detector(DetectorSettings(model_type="spectrogram_resnet18")), 4, 64_600),
}


def show_bits(names: list[str]) -> bool:
    """Print a row for each network and return whether each has one digest."""
    is_same = True
    print(f"{'':24}" + "".join(f"{count:>12}" for count in NUMBERS) + "   processes")
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "corpus", NUM_TRAIN, NUM_DEV)
        for name in names:
            digests = []
            print(f"{name:24}", end="", flush=True)
            for count in NUMBERS:
                place = Path(folder) / f"{name}.{count}".replace(", ", "-")
                digests.append(_digest_of_a_run(place, corpus, RUNS[name], count))
                print(f"  {digests[-1][:10]}", end="", flush=True)
            print("   the same" if len(set(digests)) == 1 else "   NOT THE SAME", flush=True)
            is_same &= len(set(digests)) == 1
    return is_same


def _digest_of_a_run(place: Path, corpus: Path, flags: tuple[str, ...], count: int) -> str:
    here = ("--database_path", str(corpus), "--device", "cpu")
    _carried_out(place, [*STEPS, *flags, *here], count)
    (run,) = (place / "models").iterdir()
    protocol = corpus / "ASVspoof2019_LA_cm_protocols" / "ASVspoof2019.LA.cm.dev.trl.txt"
    (best,) = run.glob("best_checkpoint_*.pth")
    scoring = ["--eval", "--model_path", str(best), "--protocols_path", str(protocol), "--eval_output", "scores.txt"]
    _carried_out(place, [*scoring, *here, "--batch_size", "2", "--num_workers", "0"], count)
    digest = hashlib.sha256((place / "scores.txt").read_bytes())
    for path in sorted(run.glob("*checkpoint*.pth")):
        _add(digest, bits(path))
    return digest.hexdigest()


def _carried_out(place: Path, arguments: list[str], count: int) -> None:
    befalls = dict.fromkeys(range(count), lambda: faulthandler.dump_traceback_later(HANGS_AFTER_S))
    running = training(place, arguments, count, befalls, OMP_NUM_THREADS="1")
    if running.codes() != [0] * count:
        raise RuntimeError(running.all_said())


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    elif isinstance(value, dict):
        for name, part in value.items():
            digest.update(str(name).encode())
            _add(digest, part)
    elif isinstance(value, list | tuple):
        for part in value:
            _add(digest, part)
    else:
        digest.update(repr(value).encode())


def show_cost(names: list[str]) -> None:
    """Print for each network what a step takes in each way, and how much is sent."""
    for name in names:
        build, utterances, samples = COSTS[name]
        first, second = on_processes(2, lambda ranks: _timed(ranks, *_state_of(build()), utterances, samples))  # noqa: B023
        slower = {way: list(map(max, first[0][way], second[0][way])) for way in first[0]}
        print(f"{name}: {first[2]:,} parameters, {utterances} x {samples / 16_000:.1f} s a process, {ROUNDS} rounds")
        for way, seconds in slower.items():
            ratios = [one / other for one, other in zip(seconds, slower["DistributedDataParallel"], strict=True)]
            cpu_s = statistics.median(map(max, first[3][way], second[3][way]))
            print(
                f"  {way:28}{statistics.median(seconds):8.3f} s a step  {statistics.median(ratios):6.2f} of DDP"
                f"  {cpu_s:8.3f} s of processor time"
            )
        print(f"  sent by a process a step: {first[1] / 2**20:,.1f} MiB, of gradients {4 * first[2] / 2**20:,.1f} MiB")


def _state_of(detector: Detector) -> tuple[TrainState, DetectionTask]:
    options = Options(model_type=detector.settings.model_type, accumulate_steps=2)
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-6)
    history = History(DETECTION.figures, UnfinishedEpoch(10_000), (("a", 0),))
    schedule = make_schedule(optimizer, options, 10_000)
    state = TrainState({"model": detector}, {"optimizer": optimizer}, {"scheduler": schedule}, history)
    return state, DetectionTask(options, torch.device("cpu"))


def _timed(
    ranks: Ranks, state: TrainState, task: DetectionTask, utterances: int, samples: int
) -> tuple[dict[str, list[float]], int, int, dict[str, list[float]]]:
    """Return the seconds of each round by the way of stepping, how many bytes were sent a step, how many parameters.

    And the seconds of processor time, which depend less on what else the machine does.
    """
    detector = state.networks["model"].train()
    waveforms = 0.1 * torch.randn(utterances, samples, generator=torch.Generator().manual_seed(ranks.index))
    labels = torch.arange(utterances) % 2
    exchange = Exchange(ranks.group, Share(ranks.index, 2, 2))
    given = StepBatches([Batch(waveforms, labels, labels)], ranks.index, 2, torch.cat([labels, labels]))
    wrapped = DistributedDataParallel(detector, process_group=ranks.group)
    optimizer = state.optimizers["optimizer"]

    def plain(network: nn.Module) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = weighted_cross_entropy(network(waveforms), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()
        nn.utils.get_total_norm([one.grad for one in detector.parameters() if one.grad is not None]).item()
        optimizer.step()

    ways: dict[str, Callable[[], object]] = {
        "in the tree of the batches": lambda: take_step(state, task, given, ranks, exchange),
        "DistributedDataParallel": lambda: plain(wrapped),
        "two alone": lambda: plain(detector),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    cpu_seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):  # the first one is not measured
        order = list(ways)[number % 3 :] + list(ways)[: number % 3]
        for way in order:
            barrier(ranks.group)
            began, cpu_began = time.perf_counter(), time.process_time()
            ways[way]()
            if number:
                seconds[way].append(time.perf_counter() - began)
                cpu_seconds[way].append(time.process_time() - cpu_began)
    return seconds, exchange.bytes_sent // (ROUNDS + 1), state.num_parameters, cpu_seconds


def main(arguments: list[str]) -> int:
    """Show what is asked for, and return 1 where bits differ."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    launched.ENDS_WITHIN_S = several.AT_MOST_S = 1.2 * HANGS_AFTER_S
    what, *names = arguments
    print(machine_text(), flush=True)
    if what == "bits":
        return 0 if show_bits(names or list(RUNS)) else 1
    show_cost(names or list(COSTS))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
