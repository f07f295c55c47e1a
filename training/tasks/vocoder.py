"""The vocoder: a HiFi-GAN generator and its discriminators, trained on bona fide speech from mel to waveform."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from models.hifigan import (
    SHAPES,
    Generator,
    Judged,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from models.log_mel import HifiGanMel
from models.precision import autocast
from training.checkpoints.record import STATE_DICT
from training.checkpoints.weights import Weights, load_into, taken_text
from training.data.batches import TrainingBatches, ValidationBatches
from training.data.loading import Batch, read_waveforms
from training.data.segments import SegmentView, beginning_view
from training.settings.options import Options
from training.settings.tasks import VOCODER, TaskDescription
from training.state.train_state import Observed, TrainState
from training.tasks.task import AudioExample, Built, Loss, Networks, Payload, Spectrogram, Step, Task
from training.tasks.vocoder_shape import SHAPE, shape_in, stored_shape
from training.tasks.vocoder_weights import METRIC, NETWORKS, OTHER_SIZE, all_networks, published_remark
from training.tasks.vocoding import Vocoder, mel_distances
from utils.audio.waveforms import SAMPLE_RATE_HZ
from utils.corpora import Corpus, CorpusPart, bona_fide_of
from utils.interruption import StopRequest

MEL_WEIGHT = 45
"""Of the mel distance beside the adversarial and feature losses; the latter's 2 is in `feature_loss`."""
RATE_OF_EPOCHS = 0.999
_BETAS = (0.8, 0.99)
_DISCRIMINATORS = ("mpd", "msd")
_NUM_EXAMPLES = 4
_MEASURE = "mel distance"
BY_DISCRIMINATORS, BY_GENERATOR = "discriminator_optimizer", "generator_optimizer"
_LAST, _FIRST = "spectrograms", "first_spectrogram"


class VocoderTask(Task):
    """Trains a generator against two discriminators, which step first, by the published recipe (arXiv 2010.05646).

    What it keeps of a validation are the spectrograms of one utterance, and what the first epoch made of it.
    """

    description: ClassVar[TaskDescription] = VOCODER
    phases: ClassVar[Mapping[str, str]] = {
        BY_DISCRIMINATORS: "discriminator_scheduler",
        BY_GENERATOR: "generator_scheduler",
    }
    keeps: tuple[str, ...] = (_LAST, _FIRST)

    def __init__(self, options: Options, device: torch.device) -> None:
        super().__init__(options, device)
        self._mel = HifiGanMel().to(device)
        self._made: tuple[Any, Tensor] | None = None

    def build(self, source: Payload | Weights | None) -> Built:
        """Return generator and discriminators; a file of weights must have all three, of one step."""
        shape = SHAPES[self.options.vocoder_size]
        if source is not None and not isinstance(source, Weights):
            shape = shape_in(source)
        networks = {
            "generator": Generator(shape),
            "mpd": MultiPeriodDiscriminator(shape),
            "msd": MultiScaleDiscriminator(shape),
        }
        remark = ""
        if isinstance(source, Weights):
            parts = all_networks(source)
            told = [taken_text(part, load_into(networks[name], part, OTHER_SIZE)) for name, part in parts.items()]
            told.append(published_remark(source))
            if f"{METRIC}{STATE_DICT}" in source.payload and not self.options.metric_discriminator:
                told.append(f"The metric discriminator of {source.path} is left aside: --metric_discriminator takes it")
            remark = "\n".join(filter(None, told))
        return Built(networks, {SHAPE: stored_shape(shape)}, reused=NETWORKS, remark=remark)

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """Return AdamW for the discriminators together and for the generator; weight decay is 0.01, as published."""
        parameters = {
            BY_DISCRIMINATORS: [one for name in ("msd", "mpd") for one in networks[name].parameters()],
            BY_GENERATOR: list(networks["generator"].parameters()),
        }
        fused = True if self.options.adam == "fused" else None
        return {
            phase: torch.optim.AdamW(of_phase, self.options.lr, betas=_BETAS, weight_decay=0.01, fused=fused)
            for phase, of_phase in parameters.items()
        }

    def schedules(self, optimizers: Mapping[str, Optimizer], total_steps: int) -> dict[str, LRScheduler]:  # noqa: ARG002
        """Return schedules that leave the rate of an epoch as it is; epochs lower it."""
        return {schedule: LambdaLR(optimizers[phase], _as_it_is) for phase, schedule in self.phases.items()}

    def heard(self, part: CorpusPart) -> CorpusPart:
        """Return the bona fide speech."""
        return bona_fide_of(part)

    def batches(self, corpus: Corpus, train: CorpusPart) -> tuple[TrainingBatches, ValidationBatches]:
        """Return segments of the training utterances, and the beginnings of those of the dev part."""
        options = self.options
        size, workers, pin = options.batch_size, options.num_workers, self.device.type == "cuda"
        training = TrainingBatches(
            train,
            batch_size=size,
            seed=options.seed,
            view=SegmentView(options.seed),
            num_workers=workers,
            pin_memory=pin,
        )
        return training, ValidationBatches(
            corpus.dev, batch_size=size, view=beginning_view, num_workers=workers, pin_memory=pin
        )

    def loss(self, state: TrainState, batch: Batch, step: Step) -> Loss:
        """Return the loss of the discriminators, then that of the generator, weighted by the batch's share of the step.

        Each is a mean over utterances, so that the gradients of several batches add up to those of one large batch.
        """
        mel = self._mel(batch.waveforms)
        loss, observed = self._loss_of(step.phase, state.networks, batch, mel, self._made_of(state, batch, mel, step))
        share = len(batch) / step.num_utterances
        return Loss(share * loss, {step.phase.removesuffix("_optimizer"): _of_each(loss, batch), **observed})

    def _loss_of(
        self, phase: str, networks: Networks, batch: Batch, mel: Tensor, made: Tensor
    ) -> tuple[Tensor, Observed]:
        """Return the mean loss of a phase, and what is observed beside it; `made` is made of the batch's `mel`."""
        real = batch.waveforms
        if phase == BY_DISCRIMINATORS:
            judged = self._judged(networks, real, made.detach())
            return torch.stack([discriminator_loss(*one) for one in judged]).sum(), {}
        with fixed([networks[name] for name in _DISCRIMINATORS]):
            judged = self._judged(networks, real, made)
        distances = mel_distances(mel, self._mel(made))
        terms = [adversarial_loss(of_made) + feature_loss(of_real, of_made) for of_real, of_made in judged]
        loss = torch.stack(terms).sum() + MEL_WEIGHT * distances.mean()
        return loss, {"mel": distances.detach().cpu()}

    def _judged(self, networks: Networks, real: Tensor, made: Tensor) -> list[tuple[Judged, Judged]]:
        with autocast(self.device, self.options.precision):
            return [networks[name](real, made) for name in _DISCRIMINATORS]

    def _made_of(self, state: TrainState, batch: Batch, mel: Tensor, step: Step) -> Tensor:
        """Return what the generator makes of a batch; of the only one of a process, all phases have the same.

        Between them the generator does not change, so that this is faster and no other number.
        """
        position = (state.step, batch.indices.tolist())
        is_last = step.phase == BY_GENERATOR
        kept, self._made = self._made, None
        if kept and kept[0] == position:
            self._made = None if is_last else kept
            return kept[1]
        with autocast(self.device, self.options.precision):
            made: Tensor = state.networks["generator"](mel)
        if not is_last and step.own == 1:
            self._made = position, made
        return made

    @property
    def nothing_observed(self) -> Observed:
        """Values (utterances,) float32: both losses, the same for all utterances of a batch, and the mel distance."""
        return {name: torch.empty(0) for name in ("discriminator", "generator", "mel")}

    def train_figures(self, mean_loss: float, observed: Observed) -> dict[str, float]:  # noqa: ARG002 - of both together
        """Return the means over all utterances."""
        return {f"train_{name}": values.double().mean().item() for name, values in observed.items()}

    def running_figure(self, observed: Any) -> str:
        """Return the mel distance so far."""
        found = observed()["mel"]
        return f"mel distance {found.mean().item():.3f}" if len(found) else ""

    def validation_step(self, state: TrainState, batch: Batch) -> Observed:
        """Return the mel distance of each utterance, and both spectrograms of the first one of the part."""
        with torch.inference_mode():
            mel = self._mel(batch.waveforms)
            made = self._mel(state.networks["generator"](mel))
        shown = torch.stack([mel, made], dim=1)[batch.indices == 0]
        return {"distances": mel_distances(mel, made).cpu(), "shown": shown.half().cpu()}

    def validated(self, step: int, observed: Observed) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the mean mel distance, and keep the spectrograms."""
        source, made = observed["shown"][0].clone()
        kept = {"step": step, "source": source.clone(), "made": made.clone()}
        return {"val_mel": observed["distances"].double().mean().item()}, {_LAST: kept}

    def epoch_completed(self, state: TrainState) -> None:
        """Lower the learning rates, and keep the first epoch's spectrogram."""
        if state.kept[_FIRST] is None:
            state.kept[_FIRST] = {name: state.kept[_LAST][name] for name in ("step", "made")}
        self.history_restored(state)

    def history_restored(self, state: TrainState) -> None:
        """Set the learning rates that the epochs completed give: --lr times 0.999 for each."""
        for phase, schedule in self.phases.items():
            rate = self._rate_of(phase, state.history.epoch)
            state.schedulers[schedule].base_lrs = [rate]
            for group in state.optimizers[phase].param_groups:
                group["initial_lr"] = group["lr"] = rate

    def _rate_of(self, phase: str, epochs: int) -> float:  # noqa: ARG002 - of all phases alike
        return self.options.lr * RATE_OF_EPOCHS**epochs

    def exhibits(self, kept: Mapping[str, Any]) -> Sequence[Spectrogram]:
        """Return the spectrograms of one utterance: its own, and of what the first and the last validation made."""
        last, first = kept.get(_LAST), kept.get(_FIRST)
        if not last:
            return []
        shown = [Spectrogram("An utterance of the dev part", last["source"])]
        if first and first["step"] != last["step"]:
            shown.append(Spectrogram("Made of it after the first epoch", first["made"]))
        return [*shown, Spectrogram("Made of it at the last validation", last["made"])]

    def audio_examples(self, networks: Networks, part: CorpusPart, stop: StopRequest) -> Sequence[AudioExample]:
        """Return a few validation utterances, each beside its copy, whose figure is the mel distance between them."""
        vocoder = Vocoder(networks["generator"].eval(), self.device)
        chosen = [int(place) for place in np.linspace(0, len(part) - 1, min(_NUM_EXAMPLES, len(part)))]
        sounds = read_waveforms([part.audio_paths[index] for index in chosen], stop)
        found = []
        for index, sound in zip(chosen, sounds, strict=True):
            name, copy = part.protocol.trials[index].utterance, vocoder.copy(sound)
            found.append(AudioExample(name, "bona fide", 0.0, sound, SAMPLE_RATE_HZ, _MEASURE))
            found.append(AudioExample(name, "vocoded", copy.mel_distance, copy.waveform, SAMPLE_RATE_HZ, _MEASURE))
        return found


def _of_each(loss: Tensor, batch: Batch) -> Tensor:
    return torch.full((len(batch),), loss.item())


def _as_it_is(step: int) -> float:  # noqa: ARG001 - a schedule
    return 1.0


@contextmanager
def fixed(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Let the block record no gradient of these networks' parameters, which this phase does not need."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)
