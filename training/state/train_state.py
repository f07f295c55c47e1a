"""All that must survive a restart, as one TrainState, and its way into and out of a checkpoint's payload.

The position to go on from is read from the state and never passed around. A payload is what torch.save writes: tensors
and plain Python values only, so that `torch.load(weights_only=True)` opens it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from training.checkpoints.decision import Decision
from training.checkpoints.history import (
    EpochMetrics,
    EpochTime,
    Pace,
    Session,
    StepMetrics,
    best_epoch,
    history_in,
    sessions_in,
    times_in,
    validation_times_in,
)
from training.settings.wandb import WandbIdentity
from training.state.last_validation import LastValidation, last_validation_in
from training.state.random_states import random_states, restore_random_states
from utils.scores.metrics import equal_error_rate


@dataclass
class UnfinishedEpoch:
    """What the epoch under way has gathered so far, so that its training loss and EER are exact after a resume.

    `loss_sum` is the sum of the steps' losses, each times its number of utterances; `scores` (utterances,) float32 are
    log-odds and `labels` (utterances,) int64, 1 = bona fide, in the order of training.
    """

    batches_per_epoch: int
    batches_done: int = 0
    utterances: int = 0
    loss_sum: float = 0.0
    scores: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    @property
    def is_trained(self) -> bool:
        """Whether the epoch's last batch is done."""
        return self.batches_done == self.batches_per_epoch

    @property
    def mean_loss(self) -> float:
        """The mean over utterances of the loss of their step."""
        return self.loss_sum / self.utterances

    def add(self, loss: float, scores: Tensor, labels: Tensor, num_batches: int = 1) -> None:
        """Take in one step over one batch or several, whose `loss` is a mean over their utterances."""
        self.batches_done += num_batches
        self.utterances += len(labels)
        self.loss_sum += loss * len(labels)
        self.scores.append(scores)
        self.labels.append(labels)

    def all_scores(self) -> Tensor:
        """Return (utterances,) float32."""
        return torch.cat(self.scores) if self.scores else torch.empty(0)

    def all_labels(self) -> Tensor:
        """Return (utterances,) int64."""
        return torch.cat(self.labels) if self.labels else torch.empty(0, dtype=torch.int64)

    def eer_percent(self) -> float | None:
        """Return the EER of the scores so far, each given by the weights of its step; None before both classes came."""
        is_bona_fide = self.all_labels().numpy() == 1
        if is_bona_fide.all() or not is_bona_fide.any():
            return None
        return equal_error_rate(self.all_scores().numpy(), is_bona_fide).eer_percent


@dataclass
class TrainState:
    """Networks, optimizers and schedulers by name, the position, the figures so far.

    Everything named here is saved as `<name>_state_dict` in one file, so parts that belong together (a generator and
    its discriminators, say) cannot be saved apart. `history` has the figures of every completed epoch, `validations`
    those that --val_interval asked for, `decision` the threshold of the last validation and `last_validation` its
    scores. `lost_epochs` are those whose checkpoint a full disk refused.
    `times`, `validation_times`, `pace` and the seconds say when and how long, and `sessions` which processes trained:
    they differ from machine to machine. All the rest has the same bits however often the run was stopped.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    schedulers: dict[str, LRScheduler]
    unfinished: UnfinishedEpoch
    lineage: tuple[tuple[str, int], ...]
    epoch: int = 0
    step: int = 0
    history: list[EpochMetrics] = field(default_factory=list)
    validations: list[StepMetrics] = field(default_factory=list)
    decision: Decision | None = None
    last_validation: LastValidation | None = None
    lost_epochs: list[int] = field(default_factory=list)
    times: list[EpochTime] = field(default_factory=list)
    training_seconds: float = 0.0
    seconds_in_epoch: float = 0.0
    sessions: list[Session] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    validation_times: list[float] = field(default_factory=list)
    wandb: WandbIdentity | None = None

    @property
    def best(self) -> EpochMetrics | None:
        """The best epoch so far, of those whose checkpoint could be saved."""
        return best_epoch([row for row in self.history if row.epoch not in self.lost_epochs])

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        optimizer = next(iter(self.optimizers.values()))
        return float(optimizer.param_groups[0]["lr"])

    @property
    def validated(self) -> StepMetrics | None:
        """The validation figures of the weights as they are now; None where they were not validated."""
        last = self.history[-1] if self.history else None
        if last and last.step == self.step:
            return StepMetrics(last.step, last.epoch, last.val_loss, last.val_acc, last.val_eer)
        return next((row for row in self.validations[-1:] if row.step == self.step), None)

    def _parts(self) -> dict[str, Any]:
        return {
            f"{name}_state_dict": part for name, part in (self.networks | self.optimizers | self.schedulers).items()
        }

    def to_payload(self) -> dict[str, Any]:
        """Return everything as tensors and plain values; the tensors are the live ones, not copies."""
        last, best = (self.history[-1] if self.history else None), self.best
        figures = {
            name: getattr(last, name, None) for name in ("train_loss", "train_eer", "val_loss", "val_acc", "val_eer")
        }
        return {
            "epoch": self.epoch,
            "step": self.step,
            **{key: part.state_dict() for key, part in self._parts().items()},
            **figures,
            "metrics": figures,
            "best_val_eer": best.val_eer if best else None,
            "history": [asdict(row) for row in self.history],
            "validations": [asdict(row) for row in self.validations],
            "decision": self.decision.as_dict() if self.decision else None,
            "last_validation": self.last_validation.as_dict() if self.last_validation else None,
            "lost_epochs": list(self.lost_epochs),
            "unfinished_epoch": {
                "batches_per_epoch": self.unfinished.batches_per_epoch,
                "batches_done": self.unfinished.batches_done,
                "utterances": self.unfinished.utterances,
                "loss_sum": self.unfinished.loss_sum,
                "scores": self.unfinished.all_scores(),
                "labels": self.unfinished.all_labels(),
            },
            "lineage": [list(part) for part in self.lineage],
            "times": [asdict(row) for row in self.times],
            "validation_times": list(self.validation_times),
            "pace": asdict(self.pace),
            "training_seconds": self.training_seconds,
            "seconds_in_epoch": self.seconds_in_epoch,
            "sessions": [session.as_dict() for session in self.sessions],
            "random_states": random_states(),
            **(self.wandb.as_dict() if self.wandb else {}),
        }

    def restore(self, payload: Mapping[str, Any]) -> None:
        """Take over everything from a payload, strictly: a missing or foreign key raises KeyError or RuntimeError."""
        for key, part in self._parts().items():
            part.load_state_dict(payload[key])
        self.epoch = payload["epoch"]
        self.step = payload["step"]
        self.history = history_in(payload)
        self.validations = [StepMetrics(**row) for row in payload["validations"]]
        self.decision = Decision.from_dict(payload.get("decision"))  # not in files of earlier versions
        self.last_validation = last_validation_in(payload)
        self.lost_epochs = list(payload["lost_epochs"])
        self.times = times_in(payload)
        self.validation_times = validation_times_in(payload)
        self.pace = Pace(**payload.get("pace", {}))  # not in files of earlier versions
        self.training_seconds = payload["training_seconds"]
        self.seconds_in_epoch = payload["seconds_in_epoch"]
        self.sessions = sessions_in(payload)
        self.wandb = WandbIdentity.in_payload(payload)
        self.lineage = tuple((run_id, step) for run_id, step in payload["lineage"])
        under_way = payload["unfinished_epoch"]
        if under_way["batches_done"]:  # else the epoch ahead may have another length, with other data
            self.unfinished = UnfinishedEpoch(
                under_way["batches_per_epoch"],
                under_way["batches_done"],
                under_way["utterances"],
                under_way["loss_sum"],
                [under_way["scores"]],
                [under_way["labels"]],
            )
        restore_random_states(payload["random_states"])
