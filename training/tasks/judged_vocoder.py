"""--metric_discriminator: a vocoder with a third discriminator, which learns to predict the PESQ of its generator.

As in CMGAN (arXiv 2203.15149; ruizhecao96/CMGAN src/train.py): it shall say (PESQ - 1) / 3.5 of a source and its copy,
and 1 of a source and itself, at twice the rate; the generator shall make it say 1. No copies of earlier steps are kept,
as MetricGAN+ does, so that there is no state beside the networks, optimizers and schedules.

An utterance without a PESQ, of silence say, drops out: its terms are 0. It still passes through the network, whose
spectral norm moves by how often it was called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.metric_discriminator import CompressedSpectra, MetricDiscriminator
from models.precision import autocast
from training.checkpoints.record import STATE_DICT
from training.checkpoints.weights import Weights, load_into, taken_text
from training.data.loading import Batch
from training.settings.options import Options
from training.settings.tasks import JUDGED_VOCODER, TaskDescription
from training.state.train_state import Observed
from training.tasks.perceived_quality import Measure, required_pesq
from training.tasks.task import Built, Networks, Payload
from training.tasks.vocoder import BY_DISCRIMINATORS, BY_GENERATOR, VocoderTask, fixed
from training.tasks.vocoder_weights import METRIC

_BY_METRIC = "metric_optimizer"
_TIMES_THE_RATE = 2
_LEAST_PESQ, _SPAN_OF_PESQ = 1.0, 3.5
METRIC_WEIGHT = 1.0
"""Of the generator's term, as each discriminator of HiFi-GAN has it; CMGAN's 0.05 is beside losses of another scale."""


class JudgedVocoderTask(VocoderTask):
    """As VocoderTask, the metric discriminator stepping after the other two; `measure` is PESQ unless it is given."""

    description: ClassVar[TaskDescription] = JUDGED_VOCODER
    phases: ClassVar[Mapping[str, str]] = {
        BY_DISCRIMINATORS: VocoderTask.phases[BY_DISCRIMINATORS],
        _BY_METRIC: "metric_scheduler",
        BY_GENERATOR: VocoderTask.phases[BY_GENERATOR],
    }

    def __init__(self, options: Options, device: torch.device, measure: Measure | None = None) -> None:
        super().__init__(options, device)
        self._spectra = CompressedSpectra().to(device)
        self._measure = measure

    def refuse_missing_packages(self) -> None:
        """Raise UserError where PESQ is to be measured and is not installed."""
        _ = self._pesq

    def build(self, source: Payload | Weights | None) -> Built:
        """Return all four networks; a file of weights may be of a vocoder that had no metric discriminator."""
        built, metric = super().build(source), MetricDiscriminator()
        told = [built.remark]
        if isinstance(source, Weights):
            key = f"{METRIC}{STATE_DICT}"
            if key in source.payload:
                weights = replace(source, state_dict=source.payload[key], key=key, unused=())
                told.append(taken_text(weights, load_into(metric, weights)))
            else:
                told.append(f"{source.path} has no metric discriminator: that begins anew")
        networks, reused = {**built.networks, METRIC: metric}, (*built.reused, METRIC)
        return replace(built, networks=networks, reused=reused, remark="\n".join(filter(None, told)))

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """Return AdamW for the metric discriminator, too, with torch's betas and weight decay, as published."""
        fused = True if self.options.adam == "fused" else None
        metric = torch.optim.AdamW(networks[METRIC].parameters(), self._rate_of(_BY_METRIC, 0), fused=fused)
        found = {**super().optimizers(networks), _BY_METRIC: metric}
        return {phase: found[phase] for phase in self.phases}

    @property
    def nothing_observed(self) -> Observed:
        """Values (utterances,) float32: the three losses, the same for all of a batch, and the mel distance."""
        return {**super().nothing_observed, "metric": torch.empty(0)}

    def _loss_of(
        self, phase: str, networks: Networks, batch: Batch, mel: Tensor, made: Tensor
    ) -> tuple[Tensor, Observed]:
        metric = networks[METRIC]
        if phase == _BY_METRIC:
            return self._loss_of_metric(metric, batch.waveforms, made.detach()), {}
        loss, observed = super()._loss_of(phase, networks, batch, mel, made)
        if phase == BY_GENERATOR:
            real, copy = self._spectra(batch.waveforms, made)
            with fixed([metric]), autocast(self.device, self.options.precision):
                loss = loss + METRIC_WEIGHT * (1 - metric(real, copy)).square().mean()
        return loss, observed

    def _loss_of_metric(self, metric: nn.Module, real: Tensor, made: Tensor) -> Tensor:
        measured = [self._pesq(*pair) for pair in zip(real.cpu().numpy(), made.cpu().numpy(), strict=True)]
        has_pesq = torch.tensor([one is not None for one in measured], device=self.device)
        pesq = torch.tensor([_LEAST_PESQ if one is None else one for one in measured], device=self.device)
        of_source, of_copy = self._spectra(real, made)
        with autocast(self.device, self.options.precision):
            said, said_of_source = metric(of_source, of_copy), metric(of_source, of_source)
        terms = (said - (pesq - _LEAST_PESQ) / _SPAN_OF_PESQ).square() + (said_of_source - 1).square()
        return torch.where(has_pesq, terms, 0).mean()

    @property
    def _pesq(self) -> Measure:
        self._measure = self._measure or required_pesq()
        return self._measure

    def _rate_of(self, phase: str, epochs: int) -> float:
        return (_TIMES_THE_RATE if phase == _BY_METRIC else 1) * super()._rate_of(phase, epochs)
