"""What a trained vocoder has come to: mel distance, PESQ and STOI of its copies beside Griffin-Lim's, and a picture.

    python -m benchmarks.vocoder_training RUN PICTURE [--utterances N] [--epochs N...]

RUN is the folder of a vocoder's training, of which the figures of each epoch are read, and the checkpoints of its best
epoch and of those that are named. They copy bona fide utterances of the evaluation part of its corpus, N of them at
even distances, as `--eval` does. Griffin-Lim is `griffin_lim` of `--make_spoofs`: it starts from the same mel bands,
without phases, and takes 32 rounds. PESQ and STOI need the packages of requirements-vocoder.txt. The computing takes
one thread.

PICTURE (PNG) shows the mel distance of the dev part by epoch, with that of Griffin-Lim on the evaluation part as a
line, and spectrograms of one utterance of the dev part: its own, and what the first epoch and the last validation made
of it.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.measuring import machine_text
from models.log_mel import HifiGanMel
from training.checkpoints.weights import load_weights
from training.data.segments import at_peak
from training.evaluation.vocoding import TITLES, measures_that_are_there
from training.runs.finding import find_source
from training.settings.requests import MakeSpoofs
from training.spoofs.vocoders import NamedVocoder, find_vocoders
from training.tasks.task import Spectrogram
from training.tasks.vocoder import VocoderTask
from training.tasks.vocoding import mel_distances
from utils.audio.waveforms import Waveform, read_waveform
from utils.corpora import bona_fide_of, find_evaluation_part

BASELINE = "griffin_lim"


def figures_of(vocoder: NamedVocoder, sounds: Mapping[str, Waveform]) -> dict[str, float]:
    """Return the means of the figures over utterances, each brought to the level of training before it is copied."""
    mel, measures = HifiGanMel(), measures_that_are_there()
    values: dict[str, list[float]] = {name: [] for name in TITLES}
    for name, sound in sounds.items():
        source, _ = at_peak(sound)
        made = vocoder.copy(source, name)
        values["mel"].append(mel_distances(*(mel(torch.from_numpy(one)[None]) for one in (source, made))).item())
        for title, measure in measures.items():
            found = measure(source, made)
            values[title] += [] if found is None else [found]
    return {name: fmean(found) for name, found in values.items() if found}


def dev_distances(run: Path) -> tuple[list[int], list[float]]:
    """Return the epochs of a run and their mel distances."""
    with (run / "training_log.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    return [int(row["epoch"]) for row in rows], [float(row["val_mel"]) for row in rows]


def picture(curve: tuple[Sequence[int], Sequence[float]], baseline: float, shown: Sequence[Spectrogram]) -> Figure:
    """Return the curve above the spectrograms."""
    figure = Figure(figsize=(9, 2.2 * (1 + len(shown))), layout="constrained")
    axes = figure.subplots(1 + len(shown), 1)
    axes[0].plot(*curve, color="#21918c", label="small, dev part")
    axes[0].axhline(baseline, color="#d95f02", linestyle="--", label="Griffin-Lim, evaluation part")
    axes[0].set(xlabel="epoch", ylabel="mel distance", ylim=(0, None))
    axes[0].legend()
    softest, loudest = (float(value) for value in shown[0].bands.float().aminmax())
    for place, one in zip(axes[1:], shown, strict=True):
        bands = one.bands.float().numpy()
        place.imshow(bands, origin="lower", aspect="auto", cmap="Greys", vmin=softest, vmax=loudest)
        place.set(title=one.title, ylabel="mel band")
    axes[-1].set(xlabel="frame of 16 ms")
    return figure


@torch.inference_mode()
def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--utterances", type=int, default=120)
    parser.add_argument("--epochs", nargs="*", type=int, default=[1])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # packages of figures warn of their own imports
    print(machine_text())

    last = find_source(asked.run, "last")
    options = last.source.options
    assert options is not None, f"{last.path} does not say what trained it"
    part = bona_fide_of(find_evaluation_part(Path(options.database_path), needs_spoofs=False))
    chosen = np.linspace(0, len(part) - 1, min(asked.utterances, len(part))).astype(int)
    sounds = {part.protocol.trials[index].utterance: read_waveform(part.audio_paths[index]) for index in chosen}

    print(f"{len(sounds)} bona fide utterances of the evaluation part of {options.database_path}")
    of_epochs = [next(asked.run.glob(f"checkpoint_epoch_{epoch}[_.]*pth")) for epoch in asked.epochs]
    named = (*map(str, [*of_epochs, asked.run]), BASELINE)
    request = MakeSpoofs(folder=Path(), vocoders=named, load_checkpoint_type="best", options=options)
    distances = {}
    for vocoder in find_vocoders(request):
        found = figures_of(vocoder, sounds)
        distances[vocoder.name] = found["mel"]
        figures = "".join(f"  {TITLES[name]} {value:.3f}" for name, value in found.items())
        print(f"{vocoder.name:34}{figures}", flush=True)

    curve = dev_distances(asked.run)
    exhibits = VocoderTask(options, torch.device("cpu")).exhibits(load_weights(last).payload)
    picture(curve, distances[BASELINE], exhibits).savefig(asked.picture, dpi=100)
    print(f"{curve[0][-1]} epochs, mel distance of the dev part {curve[1][0]:.3f} to {min(curve[1]):.3f}")


if __name__ == "__main__":
    main()
