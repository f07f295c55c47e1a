"""A task that is no detection: two networks, two optimizers that step one after the other, a figure of its own.

An echo learns to repeat the beginning of an utterance, a critic to tell the echo from it. Small enough for
milliseconds, with dropout in both networks, so that a step whose randomness depended on a stop would show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

from models.names import MODEL_TYPES
from training.checkpoints.weights import Weights
from training.data.batches import TrainingBatches, ValidationBatches
from training.data.loading import Batch
from training.settings.options import SETTINGS
from training.settings.tasks import TASK_OF_MODEL, Figure, Figures, TaskDescription
from training.state.train_state import Observed, TrainState
from training.tasks.registry import TASKS
from training.tasks.task import Built, Loss, Networks, Payload, Step, Task
from utils.corpora import Corpus, CorpusPart

HEARD = 8
CLOSENESS = Figure("val", "closeness", "closeness", higher_is_better=True, rank=1, listed=True, chart="Closeness")
ECHO = TaskDescription(
    "echo",
    Figures((Figure("train", "error", "error", chart="Error"), CLOSENESS, Figure("val", "doubt", "doubt"))),
    refuses={
        "--score": "it repeats speech and judges none",
        "--eval": "it has no scores",
        "--export": "it has no class",
    },
    own_schedule=True,
)


class EchoTask(Task):
    """The critic steps first; what the best epoch is, is said by `val_closeness`: higher is better."""

    description: ClassVar[TaskDescription] = ECHO
    phases: ClassVar[Mapping[str, str]] = {"critic_optimizer": "critic_schedule", "echo_optimizer": "echo_schedule"}
    keeps: tuple[str, ...] = ("furthest", "distances")
    recorded: ClassVar[tuple[str, ...]] = ("furthest",)

    def build(self, source: Payload | Weights | None) -> Built:
        width = source["width"] if isinstance(source, Mapping) else 6
        echo = nn.Sequential(nn.Linear(HEARD, width), nn.Tanh(), nn.Dropout(0.3), nn.Linear(width, HEARD))
        critic = nn.Sequential(nn.Linear(HEARD, width), nn.Tanh(), nn.Dropout(0.3), nn.Linear(width, 1))
        if isinstance(source, Weights):
            echo.load_state_dict(source.state_dict)
        return Built({"echo": echo, "critic": critic}, {"width": width}, reused=("echo",))

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        return {f"{name}_optimizer": torch.optim.AdamW(networks[name].parameters(), 0.01) for name in networks}

    def schedules(self, optimizers: Mapping[str, Optimizer], total_steps: int) -> dict[str, LRScheduler]:
        return {schedule: StepLR(optimizers[name], 2, 0.9) for name, schedule in self.phases.items()}

    def batches(self, corpus: Corpus, train: CorpusPart) -> tuple[TrainingBatches, ValidationBatches]:
        size = self.options.batch_size
        return TrainingBatches(train, batch_size=size, seed=self.options.seed), ValidationBatches(
            corpus.dev, batch_size=size
        )

    def loss(self, state: TrainState, batch: Batch, step: Step) -> Loss:
        heard, echoed = beginnings(batch), state.networks["echo"](beginnings(batch))
        share, critic = len(batch) / step.num_utterances, state.networks["critic"]
        if step.phase == "critic_optimizer":
            return Loss(share * (critic(echoed.detach()).square() + (critic(heard) - 1).square()).mean())
        errors = (echoed - heard).square().mean(dim=1)
        fooled = (critic(echoed) - 1).square().mean()
        return Loss(share * (errors.mean() + 0.1 * fooled), {"errors": errors.detach()})

    @property
    def nothing_observed(self) -> Observed:
        return {"errors": torch.empty(0)}

    def train_figures(self, mean_loss: float, observed: Observed) -> dict[str, float]:
        return {"train_error": observed["errors"].mean().item()}

    def validation_step(self, state: TrainState, batch: Batch) -> Observed:
        with torch.inference_mode():
            heard = beginnings(batch)
            echoed = state.networks["echo"](heard)
            doubts = state.networks["critic"](echoed)[:, 0]
        return {"distances": (echoed - heard).norm(dim=1), "doubts": doubts}

    def validated(self, step: int, observed: Observed) -> tuple[dict[str, float], dict[str, Any]]:
        distances = observed["distances"]
        figures = {"val_closeness": 10 - distances.mean().item(), "val_doubt": observed["doubts"].mean().item()}
        return figures, {"furthest": {"step": step, "distance": distances.max().item()}, "distances": distances}


def beginnings(batch: Batch) -> Tensor:
    return 10 * batch.waveforms[:, 1000 : 1000 + HEARD]


@contextmanager
def registered() -> Iterator[None]:
    """Let `--model_type echo` be trained by the task, as a second real one would be."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(SETTINGS, "model_type", replace(SETTINGS["model_type"], choices=(*MODEL_TYPES, "echo")))
        patched.setitem(TASK_OF_MODEL, "echo", ECHO)
        patched.setitem(TASKS, "echo", EchoTask)
        yield
