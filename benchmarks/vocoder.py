"""What a step of the vocoder takes, beside the published code (jik876/hifi-gan): time, memory, and the losses.

    git clone https://github.com/jik876/hifi-gan FOLDER
    OMP_NUM_THREADS=1 python -m benchmarks.vocoder FOLDER [--sizes V1 V3] [--batch_size N] [--rounds N]

Two processes for each size, both on the CPU: ours takes steps as a training does, the other one those of their
train.py, line for line, with their networks, losses and optimizers. Both begin with the same weights and hear the same
segments of 8,192 samples. They step in turn, and the first round is not counted. Printed are medians, of processor time
too, which says more on a machine that does other things; the most memory of each process, torch included; and the
losses of the first step.

For today's torch two calls of theirs are adapted: `torch.stft` returns complex numbers, and librosa's filters are ours.
The spectra of the real segments, which their data loader computes, are not counted for theirs; they are for ours.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.measuring import machine_text

SEED = 1234
SEGMENT_SAMPLES = 8192
LEARNING_RATE = 2e-4
MIB = 1 << 20
Losses = tuple[float, float]
Step = Callable[[Any], Callable[[], Losses]]
"""From segments (batch, samples) to a step on them, which returns the losses of discriminators and generator."""


@dataclass(frozen=True)
class Taken:
    """What one step took: wall and processor time in seconds, the most memory so far in MiB, and its losses."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    losses: Losses


def published(checkout: Path, size: str, weights: Path, filters: Any) -> Step:
    """Return the step of a checkout's train.py, and write the weights that it begins with."""
    import torch  # noqa: PLC0415  (not in the process that measures)
    from torch.nn import functional as F  # noqa: PLC0415

    librosa = {name: ModuleType(name) for name in ("librosa", "librosa.util", "librosa.filters")}
    librosa["librosa.util"].__dict__["normalize"] = None
    librosa["librosa.filters"].__dict__["mel"] = lambda *_: filters
    sys.modules |= librosa
    stft: Any = torch.stft
    torch.stft = lambda *given, **named: torch.view_as_real(stft(*given, **named, return_complex=True))
    sys.path.insert(0, str(checkout))
    theirs, env, data = (__import__(name) for name in ("models", "env", "meldataset"))

    h = env.AttrDict(json.loads((checkout / f"config_{size.lower()}.json").read_text(encoding="utf-8")))
    torch.manual_seed(SEED)
    generator, mpd, msd = theirs.Generator(h), theirs.MultiPeriodDiscriminator(), theirs.MultiScaleDiscriminator()
    networks = {"generator": generator, "mpd": mpd, "msd": msd}
    torch.save({name: network.state_dict() for name, network in networks.items()}, weights)
    betas = (h.adam_b1, h.adam_b2)
    optim_g = torch.optim.AdamW(generator.parameters(), h.learning_rate, betas=betas)
    optim_d = torch.optim.AdamW([*msd.parameters(), *mpd.parameters()], h.learning_rate, betas=betas)
    of_spectra = (h.n_fft, h.num_mels, h.sampling_rate, h.hop_size, h.win_size, h.fmin, h.fmax_for_loss)

    def step(y: Any, y_mel: Any) -> Losses:
        y = y.unsqueeze(1)
        y_g_hat = generator(y_mel)
        y_g_hat_mel = data.mel_spectrogram(y_g_hat.squeeze(1), *of_spectra)
        optim_d.zero_grad()
        y_df_hat_r, y_df_hat_g, _, _ = mpd(y, y_g_hat.detach())
        loss_disc_f, _, _ = theirs.discriminator_loss(y_df_hat_r, y_df_hat_g)
        y_ds_hat_r, y_ds_hat_g, _, _ = msd(y, y_g_hat.detach())
        loss_disc_s, _, _ = theirs.discriminator_loss(y_ds_hat_r, y_ds_hat_g)
        loss_disc_all = loss_disc_s + loss_disc_f
        loss_disc_all.backward()
        optim_d.step()
        optim_g.zero_grad()
        loss_mel = F.l1_loss(y_mel, y_g_hat_mel) * 45
        y_df_hat_r, y_df_hat_g, fmap_f_r, fmap_f_g = mpd(y, y_g_hat)
        y_ds_hat_r, y_ds_hat_g, fmap_s_r, fmap_s_g = msd(y, y_g_hat)
        loss_fm_f = theirs.feature_loss(fmap_f_r, fmap_f_g)
        loss_fm_s = theirs.feature_loss(fmap_s_r, fmap_s_g)
        loss_gen_f, _ = theirs.generator_loss(y_df_hat_g)
        loss_gen_s, _ = theirs.generator_loss(y_ds_hat_g)
        loss_gen_all = loss_gen_s + loss_gen_f + loss_fm_s + loss_fm_f + loss_mel
        loss_gen_all.backward()
        optim_g.step()
        return loss_disc_all.item(), loss_gen_all.item()

    def made_ready(segments: Any) -> Callable[[], Losses]:
        spectra = data.mel_spectrogram(segments, *of_spectra)
        return lambda: step(segments, spectra)

    return made_ready


def ours(_checkout: Path, size: str, weights: Path, _filters: Any) -> Step:
    """Return the step of a training that begins with stored weights."""
    import torch  # noqa: PLC0415

    from training.checkpoints.history import History, UnfinishedEpoch  # noqa: PLC0415
    from training.data.loading import Batch  # noqa: PLC0415
    from training.data.shares import StepBatches  # noqa: PLC0415
    from training.loop.step import take_step  # noqa: PLC0415
    from training.loop.undoing import StepUndo  # noqa: PLC0415
    from training.settings.options import Options  # noqa: PLC0415
    from training.settings.tasks import VOCODER  # noqa: PLC0415
    from training.state.train_state import TrainState  # noqa: PLC0415
    from training.tasks.vocoder import VocoderTask  # noqa: PLC0415

    options = Options(model_type="hifigan", vocoder_size=size, lr=LEARNING_RATE)
    task = VocoderTask(options, torch.device("cpu"))
    networks = task.build(None).networks
    for name, held in torch.load(weights, weights_only=True).items():
        networks[name].load_state_dict(held)
    optimizers = task.optimizers(networks)
    history = History(VOCODER.figures, UnfinishedEpoch(1000), (("0123456789abcdef", 0),))
    state = TrainState(networks, optimizers, task.schedules(optimizers, 1000), history)
    undo = StepUndo(list(networks.values()), list(optimizers.values()))

    def step(batch: Batch) -> Losses:
        with undo.step():
            by_discriminators, by_generator = take_step(state, task, StepBatches.whole([batch])).observed
        return by_discriminators["discriminator"][0].item(), by_generator["generator"][0].item()

    def made_ready(segments: Any) -> Callable[[], Losses]:
        numbers = torch.arange(len(segments))
        return lambda: step(Batch(segments, torch.ones_like(numbers), numbers))

    return made_ready


def work(make: Callable[..., Step], given: tuple[Any, ...], batch_size: int, ends: Connection) -> None:
    """Take a step whenever it is asked for one, each on other segments, and say what it took."""
    import torch  # noqa: PLC0415

    ready = make(*given)
    generator = torch.Generator().manual_seed(SEED)
    ends.send(None)
    while ends.recv():
        step = ready((0.1 * torch.randn(batch_size, SEGMENT_SAMPLES, generator=generator)).clamp(-1, 1))
        began, cpu_began = time.perf_counter(), time.process_time()
        losses = step()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB  # of KiB, on Linux
        ends.send(Taken(seconds, cpu_seconds, peak_mib, losses))


def measured(checkout: Path, size: str, batch_size: int, rounds: int) -> dict[str, list[Taken]]:
    """Return what the steps of each side took, in a process of its own each; the first one not counted."""
    from utils.audio.mel_filters import slaney_filters  # noqa: PLC0415

    filters, spawning = slaney_filters(16_000, 1024, 80, 8_000), multiprocessing.get_context("spawn")
    sides: dict[str, tuple[Any, Connection]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for make in (published, ours):
            own, its = spawning.Pipe()
            given = (checkout, size, Path(folder) / "weights.pt", filters)
            process = spawning.Process(target=work, args=(make, given, batch_size, its), daemon=True)
            process.start()
            its.close()
            own.recv()  # it is ready, or EOFError after its traceback
            sides[make.__name__] = process, own
    found: dict[str, list[Taken]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in sorted(sides, reverse=bool(number % 2)):
            sides[name][1].send(True)
            found[name].append(sides[name][1].recv())
    for process, own in sides.values():
        own.send(False)
        process.join()
    return found


def table(size: str, found: dict[str, list[Taken]]) -> str:
    """Return what each side took, what ours takes of theirs, and the losses of the first step."""
    lines = [f"{size:12}{'wall':>12}{'processor':>12}{'memory':>14}   losses of the first step"]
    rows = {}
    for name, steps in found.items():
        seconds, cpu = (
            statistics.median(getattr(one, what) for one in steps[1:]) for what in ("seconds", "cpu_seconds")
        )
        rows[name] = seconds, cpu, steps[-1].peak_mib
        losses = "  ".join(f"{loss:.6f}" for loss in steps[0].losses)
        lines.append(f"  {name:10}{seconds:10.2f} s{cpu:10.2f} s{steps[-1].peak_mib:10.0f} MiB   {losses}")
    ratios = [mine / theirs for mine, theirs in zip(rows["ours"], rows["published"], strict=True)]
    return "\n".join([*lines, f"  {'ratio':10}{ratios[0]:12.2f}{ratios[1]:12.2f}{ratios[2]:14.2f}"])


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["V3", "V1"], choices=["V1", "V2", "V3"])
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    command = parser.parse_args()
    if not (command.checkout / "meldataset.py").is_file():
        parser.error(f"{command.checkout} is no checkout of jik876/hifi-gan: it has no meldataset.py")
    print(machine_text(), flush=True)
    for size in command.sizes:
        print(table(size, measured(command.checkout, size, command.batch_size, command.rounds)), flush=True)


if __name__ == "__main__":
    main()
