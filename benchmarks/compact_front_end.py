"""Why the compact front-end normalises over time in its first convolution only: both variants, trained side by side.

    python -m benchmarks.compact_front_end [EPOCHS]

Both are `COMPACT_CONFIG` with random weights. "group" has wav2vec2-base's norm, over time in the first convolution;
"layer" has XLS-R's, over channels in each convolution. A norm over channels at every frame takes away how loud a frame
is beside its neighbours, and with random weights what is left is nearly the same vector for every utterance. Trained
on the demo corpus as `make demo` trains, with one seed; nothing is saved.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import machine_text
from models.build import DETECTORS
from models.front_end import COMPACT_CONFIG, rebuild_front_end
from training.checkpoints.history import History, UnfinishedEpoch
from training.data.batches import TrainingBatches, ValidationBatches
from training.data.shares import StepBatches
from training.loop.step import take_step
from training.settings.options import Options
from training.settings.tasks import DETECTION
from training.state.random_states import seed_random_states
from training.state.train_state import Observed, TrainState
from training.tasks.detection import DetectionTask
from training.tasks.detectors import detector_settings
from training.tasks.schedule import make_schedule
from utils.corpora import Corpus, find_corpus
from utils.corpora.demo_corpus import demo_corpus_folder
from utils.scores.metrics import equal_error_rate

OPTIONS = Options(batch_size=8, lr=1e-3, warmup_steps=50, num_workers=0)
VARIANTS: dict[str, dict[str, Any]] = {
    "group": COMPACT_CONFIG,
    "layer": COMPACT_CONFIG | {"feat_extract_norm": "layer", "conv_bias": True},
}


def train(config: dict[str, Any], corpus: Corpus) -> Iterator[tuple[float, float]]:
    """Train a detector with the front-end of `config` and yield training and dev EER in percent after each epoch."""
    seed_random_states(OPTIONS.seed)
    detector = DETECTORS[OPTIONS.model_type](detector_settings(OPTIONS), rebuild_front_end(config))
    training = TrainingBatches(corpus.train, batch_size=OPTIONS.batch_size, seed=OPTIONS.seed)
    validation = ValidationBatches(corpus.dev, batch_size=OPTIONS.batch_size)
    optimizer = torch.optim.Adam(detector.parameters(), lr=OPTIONS.lr, weight_decay=OPTIONS.weight_decay)
    schedule = make_schedule(optimizer, OPTIONS, OPTIONS.num_epochs * training.num_batches_per_epoch)
    task = DetectionTask(OPTIONS, torch.device("cpu"))
    history = History(DETECTION.figures, UnfinishedEpoch(training.num_batches_per_epoch), (("benchmark", 0),))
    state = TrainState({"model": detector}, {"optimizer": optimizer}, {"scheduler": schedule}, history)
    while True:
        detector.train()
        trained: list[Observed] = []
        for batch in training.batches(history.epoch + 1):
            trained += take_step(state, task, StepBatches.whole([batch])).observed
        history.epoch += 1
        detector.eval()
        validated = [task.validation_step(state, batch) for batch in validation.batches()]
        yield _eer_percent(trained), _eer_percent(validated)


def _eer_percent(seen: Sequence[Observed]) -> float:
    scores = np.concatenate([observed["scores"].numpy() for observed in seen])
    labels = np.concatenate([observed["labels"].numpy() for observed in seen])
    return equal_error_rate(scores, labels == 1).eer_percent


def main(epochs: int) -> None:
    """Train both variants in turn, epoch by epoch, and print a row for each epoch."""
    print(machine_text())
    print("EER in % on the demo corpus, chance is 50")
    print("epoch" + "".join(f"   {name + ' train':>11}  {name + ' dev':>9}" for name in VARIANTS))
    corpus = find_corpus(demo_corpus_folder())
    runs = {name: train(config, corpus) for name, config in VARIANTS.items()}
    for epoch in range(1, epochs + 1):
        figures = [next(run) for run in runs.values()]
        print(f"{epoch:5d}" + "".join(f"   {train_eer:11.1f}  {dev_eer:9.1f}" for train_eer, dev_eer in figures))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
