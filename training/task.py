"""What one training step and one validation batch of a speech deepfake detector do with a TrainState."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from models.detector import Detector, DetectorOutput, scores
from training.data import Batch
from training.losses import make_loss, margin_contrastive_loss, supervised_contrastive_loss
from training.options import Options
from training.state import TrainState
from utils.errors import UserError
from utils.seeding import derive_seed


@dataclass(frozen=True, eq=False)
class StepResult:
    """What one training step gave: the mean loss, scores (batch,) as log-odds and labels (batch,), on the CPU."""

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

    def training_step(self, state: TrainState, batch: Batch) -> StepResult:
        """Make one optimizer step; raises UserError before anything changes where loss or gradient is not finite."""
        detector, optimizer = state.networks["model"], state.optimizers["optimizer"]
        torch.manual_seed(derive_seed("step", self._options.seed, state.step))  # dropout depends on the position only
        batch = batch.to(self._device)
        with self._autocast():
            output = cast(Detector, detector).analyse(batch.waveforms)
        loss = self._loss(output, batch.labels)
        value = loss.item()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._require_finite(value, detector, state)
        optimizer.step()
        state.schedulers["scheduler"].step()
        return StepResult(value, _log_odds(output), batch.labels.cpu())

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
        return ValidationResult(loss_sum, weight_sum, _log_odds(output), batch.labels.cpu())

    def _loss(self, output: DetectorOutput, labels: Tensor) -> Tensor:
        loss = self._of_decision.mean(output.log_probabilities, labels)
        if not self._options.use_contrastive:
            return loss
        assert output.embedding is not None and output.projection is not None
        margin = margin_contrastive_loss(output.embedding, labels)
        supervised = supervised_contrastive_loss(output.projection, labels)
        return loss + self._options.contrastive_weight * margin + self._options.supcon_weight * supervised

    def _require_finite(self, loss: float, detector: torch.nn.Module, state: TrainState) -> None:
        norm = get_total_norm([p.grad for p in detector.parameters() if p.grad is not None]).item()
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        raise UserError(
            f"training diverged: {what} at step {state.step + 1}, batch {state.unfinished.batches_done + 1} of epoch "
            f"{state.epoch + 1}. Nothing was saved over: resume from an earlier checkpoint with a lower --lr or more "
            "--warmup_steps, and look at the audio of that batch"
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._options.precision == "bf16")


def _log_odds(output: DetectorOutput) -> Tensor:
    return scores(output.log_probabilities.detach().float()).cpu()
