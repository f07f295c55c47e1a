"""A TrainState of a two-layer net: all that a real run has, in milliseconds."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from tests.records import metrics
from training.checkpoints.history import History, UnfinishedEpoch
from training.checkpoints.rows import EpochTime
from training.settings.options import Options
from training.settings.tasks import DETECTION
from training.state.snapshot import RunFacts
from training.state.train_state import Observations, TrainState
from training.tasks.schedule import make_schedule

OPTIONS = Options(lr=1e-2, weight_decay=1e-4, scheduler="cosine", warmup_steps=3, num_epochs=4)
FACTS = RunFacts(
    OPTIONS,
    {"train": "a" * 64, "dev": "b" * 64},
    {"front_end_config": {"hidden_size": 4}},
    {"num_threads": 1, "torch": "2"},
    recorded=("decision",),
)
TOTAL_STEPS = 40


def small_state(options: Options = OPTIONS, weights_seed: int = 7) -> TrainState:
    """Return the state before the first step; its net draws dropout from torch's global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(weights_seed)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    schedule = make_schedule(optimizer, options, TOTAL_STEPS)
    return TrainState(
        {"model": net},
        {"optimizer": optimizer},
        {"scheduler": schedule},
        History(DETECTION.figures, UnfinishedEpoch(10), (("run-a", 0),)),
        Observations({"scores": torch.empty(0), "labels": torch.empty(0, dtype=torch.int64)}),
        {"decision": None, "last_validation": None},
    )


def train(state: TrainState, steps: int) -> None:
    """Make steps whose data come from all three global generators, so that a generator not restored shows."""
    for _ in range(steps):
        inputs = torch.randn(5, 3) * random.uniform(0.5, 2) + float(np.random.standard_normal())
        labels = torch.tensor([0, 1, 0, 1, 1])
        outputs = state.networks["model"](inputs)
        loss = nn.functional.cross_entropy(outputs, labels)
        state.optimizers["optimizer"].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizers["optimizer"].step()
        state.schedulers["scheduler"].step()
        state.history.step += 1
        state.history.under_way.add(loss.item(), len(labels))
        state.observed.add({"scores": (outputs[:, 1] - outputs[:, 0]).detach(), "labels": labels})


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def complete_epoch(state: TrainState, val_eer: float = 5.0) -> None:
    """Close the epoch under way, as the loop does after validation."""
    history = state.history
    history.complete_epoch(metrics(state.epoch + 1, val_eer=val_eer), batches_per_epoch=10)
    history.times[-1] = EpochTime(state.epoch, 1_790_000_000.25, 12.5)
    state.observed.clear()
