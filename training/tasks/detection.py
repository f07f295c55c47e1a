"""What one training step and one validation batch of a speech deepfake detector do with a TrainState."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import LambdaLR

from models.detector import Detector, DetectorOutput
from models.precision import autocast, log_odds
from training.data.batches import Batch
from training.settings.options import Options
from training.state.train_state import TrainState
from training.tasks.losses import make_loss, margin_contrastive_loss, supervised_contrastive_loss
from training.tasks.schedule import apply_rates
from utils.errors import UserError
from utils.seeding import derive_seed


@dataclass(frozen=True, eq=False)
class StepResult:
    """What one training step gave: the loss, scores (utterances,) as log-odds and labels (utterances,), on the CPU."""

    loss: float
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class ValidationResult:
    """What one validation batch gave: the loss as sums that add up over batches, scores and labels as in StepResult."""

    loss_sum: float
    weight_sum: float
    scores: Tensor
    labels: Tensor


class DetectionTask:
    """Trains a Detector with the loss of --loss and, if asked, two contrastive terms."""

    def __init__(self, options: Options, device: torch.device) -> None:
        self._options = options
        self._device = device
        self._of_decision = make_loss(options.loss, options.class_weights, options.focal_gamma)

    def training_step(self, state: TrainState, *batches: Batch) -> StepResult:
        """Make one optimizer step, over one batch or several whose gradients add up to those of one large batch.

        That holds but for what compares or averages the utterances of a batch: contrastive terms, which count by their
        batch's share of the utterances, and batch norm. Raises UserError before parameters or optimizer change where
        loss or gradient is not finite.
        """
        detector, optimizer = state.networks["model"], state.optimizers["optimizer"]
        labels = torch.cat([batch.labels for batch in batches])
        total_weight = self._of_decision.weights(labels).sum()
        optimizer.zero_grad(set_to_none=True)
        loss, scores = 0.0, []
        for number, on_cpu in enumerate(batches):
            self._seed_step(state.step, number)
            batch = on_cpu.to(self._device)
            with self._autocast():
                output = cast(Detector, detector).analyse(batch.waveforms)
            part = self._loss(output, batch.labels, total_weight, len(batch.labels) / len(labels))
            loss += part.item()
            part.backward()  # type: ignore[no-untyped-call]
            scores.append(log_odds(output))
        norm = self._require_finite(loss, state, len(batches))
        if self._options.clip_grad_norm is not None:
            clip_grads_with_norm_(detector.parameters(), self._options.clip_grad_norm, norm)
        optimizer.step()
        state.schedulers["scheduler"].step()
        return StepResult(loss, torch.cat(scores), labels)

    def _seed_step(self, step: int, number: int) -> None:
        """Make dropout depend on nothing but the position: the step, and the batch's number in it, from 0."""
        position = (step, number) if number else (step,)
        torch.manual_seed(derive_seed("step", self._options.seed, *position))

    def epoch_completed(self, state: TrainState) -> None:
        """Set the learning rate that the history, with the epoch just completed, gives the next step."""
        optimizer, schedule = state.optimizers["optimizer"], state.schedulers["scheduler"]
        apply_rates(optimizer, cast(LambdaLR, schedule), self._options, state.history)

    def validation_step(self, state: TrainState, batch: Batch) -> ValidationResult:
        """Score one batch without touching the state; the detector must be in evaluation mode.

        The loss comes as two sums over utterances, so that the validation loss does not depend on the batch size.
        """
        batch = batch.to(self._device)
        with torch.inference_mode(), self._autocast():
            output = cast(Detector, state.networks["model"]).analyse(batch.waveforms)
            terms = self._of_decision.terms(output.log_probabilities, batch.labels)
            weights = self._of_decision.weights(batch.labels)
        loss_sum, weight_sum = terms.double().sum().item(), weights.double().sum().item()
        return ValidationResult(loss_sum, weight_sum, log_odds(output), batch.labels.cpu())

    def _loss(self, output: DetectorOutput, labels: Tensor, total_weight: Tensor, share: float) -> Tensor:
        """Return the part of a step's loss that one batch has, with `share` of the step's utterances."""
        loss = self._of_decision.terms(output.log_probabilities, labels).sum() / total_weight
        if not self._options.use_contrastive:
            return loss
        assert output.embedding is not None and output.projection is not None
        margin = margin_contrastive_loss(output.embedding, labels)
        supervised = supervised_contrastive_loss(output.projection, labels)
        return (
            loss + share * self._options.contrastive_weight * margin + share * self._options.supcon_weight * supervised
        )

    def _require_finite(self, loss: float, state: TrainState, num_batches: int) -> Tensor:
        """Return the norm of the gradient."""
        norm = get_total_norm([p.grad for p in state.networks["model"].parameters() if p.grad is not None])
        if math.isfinite(loss) and math.isfinite(norm.item()):
            return norm
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm.item()}"
        first = state.unfinished.batches_done + 1
        where = f"batch {first}" if num_batches == 1 else f"batches {first} to {first + num_batches - 1}"
        raise UserError(
            f"training diverged: {what} at step {state.step + 1}, {where} of epoch "
            f"{state.epoch + 1}. Nothing was saved over: resume from an earlier checkpoint with a lower --lr or more "
            f"--warmup_steps, and look at the audio of {'that batch' if num_batches == 1 else 'those batches'}"
        )

    def _autocast(self) -> torch.autocast:
        return autocast(self._device, self._options.precision)
