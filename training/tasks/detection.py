"""Detection: bona fide or spoof, with the loss of --loss and, if asked, two contrastive terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from models.build import create_detector, rebuild_detector
from models.detector import Detector, scores
from models.precision import autocast, log_odds
from training.checkpoints.foreign_weights import adapted_from_photographs, renamed_from_fairseq
from training.checkpoints.frozen_weights import FrozenWeights, frozen_weights
from training.checkpoints.history import History
from training.checkpoints.weights import Weights, load_into, taken_text
from training.data.augmentation import rawboost_of
from training.data.batches import Crop, TrainingBatches, ValidationBatches
from training.data.loading import Batch
from training.runs.directory import RunDirectory
from training.settings.options import Options
from training.settings.tasks import DETECTION, TaskDescription
from training.state.train_state import Observed, TrainState
from training.tasks.audio_examples import audio_examples
from training.tasks.detectors import detector_settings, empty_detector
from training.tasks.fitted_decision import decision_from
from training.tasks.losses import contrastive_terms, make_loss
from training.tasks.schedule import apply_rates, make_schedule
from training.tasks.swa import SWA, StatisticsAnew, has_batch_norm, joins, with_epoch, without_statistics
from training.tasks.task import AudioExample, Built, LastPass, Loss, Networks, Payload, Scores, Step, Task
from utils.corpora import Corpus, CorpusPart
from utils.interruption import StopRequest
from utils.scores.metrics import accuracy_percent, equal_error_rate


class DetectionTask(Task):
    """Trains a Detector. What it keeps of a validation are its scores, and how to decide by them."""

    description: ClassVar[TaskDescription] = DETECTION
    phases: ClassVar[Mapping[str, str]] = {"optimizer": "scheduler"}
    keeps: tuple[str, ...] = ("decision", "last_validation")
    recorded: ClassVar[tuple[str, ...]] = ("decision",)

    def __init__(self, options: Options, device: torch.device) -> None:
        super().__init__(options, device)
        self._of_decision = make_loss(options.loss, options.class_weights, options.focal_gamma)
        if options.swa:
            self.keeps = (*self.keeps, SWA)

    def build(self, source: Payload | Weights | None) -> Built:
        """Return the detector under the name `model`; `front_end_config` builds it again."""
        settings, remark = detector_settings(self.options), ""
        if source is None:
            detector = create_detector(settings)
        elif isinstance(source, Weights):
            detector = empty_detector(settings, source)
            weights = adapted_from_photographs(renamed_from_fairseq(source, detector), detector)
            remark = taken_text(weights, load_into(detector, weights))
        else:
            detector = rebuild_detector(settings, source["front_end_config"])
        return Built({"model": detector}, {"front_end_config": dict(detector.front_end_config)}, remark=remark)

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """Return Adam over all parameters; `plain` leaves it to torch how it loops over them."""
        options = self.options
        parameters = networks["model"].parameters()
        fused = True if options.adam == "fused" else None
        adam = torch.optim.Adam(parameters, lr=options.lr, weight_decay=options.weight_decay, fused=fused)
        return {"optimizer": adam}

    def schedules(self, optimizers: Mapping[str, Optimizer], total_steps: int) -> dict[str, LRScheduler]:
        """Return the schedule of --scheduler."""
        return {"scheduler": make_schedule(optimizers["optimizer"], self.options, total_steps)}

    def batches(self, corpus: Corpus, train: CorpusPart) -> tuple[TrainingBatches, ValidationBatches]:
        """Return training utterances, augmented by RawBoost, and those of the dev part as they are."""
        options = self.options
        workers, pin = options.num_workers, self.device.type == "cuda"
        training = TrainingBatches(
            train,
            batch_size=options.batch_size,
            seed=options.seed,
            balanced=options.balanced_batches,
            paired=options.pair_batches,
            crop=cast(Crop, options.crop),
            augmentation=rawboost_of(options),
            num_workers=workers,
            pin_memory=pin,
        )
        validation = ValidationBatches(corpus.dev, batch_size=options.batch_size, num_workers=workers, pin_memory=pin)
        return training, validation

    def loss(self, state: TrainState, batch: Batch, step: Step) -> Loss:
        """Return the loss of a batch, whose terms are divided by the class weights of the whole step.

        So the gradients of several batches add up to those of one large batch, but for what compares or averages the
        utterances of a batch: contrastive terms, which count by their batch's share of the utterances, and batch norm.
        """
        options = self.options
        with autocast(self.device, options.precision):
            output = cast(Detector, state.networks["model"]).analyse(batch.waveforms)
        total_weight = self._of_decision.weights(step.labels).sum()
        loss = self._of_decision.terms(output.log_probabilities, batch.labels).sum() / total_weight
        if options.use_contrastive:
            assert output.embedding is not None and output.projection is not None
            share = len(batch.labels) / step.num_utterances
            kind, of_first, of_supervised = options.contrastive, options.contrastive_weight, options.supcon_weight
            first, supervised = contrastive_terms(kind, output.embedding, output.projection, batch.labels)
            loss = loss + share * of_first * first + share * of_supervised * supervised
        return Loss(loss, {"scores": scores(output.log_probabilities.detach().float()), "labels": batch.labels})

    @property
    def nothing_observed(self) -> Observed:
        """Scores (utterances,) float32, log-odds by the weights of each step, and labels (utterances,) int64."""
        return {"scores": torch.empty(0), "labels": torch.empty(0, dtype=torch.int64)}

    def train_figures(self, mean_loss: float, observed: Observed) -> dict[str, float]:
        """Return the mean loss and the EER of the scores that training gave."""
        eer_percent = _eer_percent(observed)
        assert eer_percent is not None  # a training part has both classes
        return {"train_loss": mean_loss, "train_eer": eer_percent}

    def running_figure(self, observed: Callable[[], Observed]) -> str:
        """Return the EER so far; "" before both classes came."""
        eer_percent = _eer_percent(observed())
        return "" if eer_percent is None else f"EER {eer_percent:.2f} %"

    def validation_step(self, state: TrainState, batch: Batch) -> Observed:
        """Score one batch in fp32 whatever --precision is: the decision that is stored is for scores in fp32.

        The loss comes as two sums over utterances, so that the validation loss does not depend on the batch size.
        """
        with torch.inference_mode():
            output = cast(Detector, state.networks["model"]).analyse(batch.waveforms)
            terms = self._of_decision.terms(output.log_probabilities, batch.labels)
            weights = self._of_decision.weights(batch.labels)
        sums = {"loss_sums": terms.double().sum(), "weight_sums": weights.double().sum()}
        observed = {name: total.reshape(1).cpu() for name, total in sums.items()}
        return observed | {"scores": log_odds(output), "labels": batch.labels.cpu()}

    def validated(self, step: int, observed: Observed) -> tuple[dict[str, float], dict[str, Any]]:
        """Return loss, accuracy and EER, and keep the scores and the calibration that they give."""
        is_bona_fide = observed["labels"] == 1
        scored, truth = observed["scores"].numpy(), is_bona_fide.numpy()
        equal_errors = equal_error_rate(scored, truth)
        figures = {
            "val_loss": sum(observed["loss_sums"].tolist()) / sum(observed["weight_sums"].tolist()),
            "val_acc": accuracy_percent(scored, truth),
            "val_eer": equal_errors.eer_percent,
        }
        kept = {
            "decision": decision_from(step, scored, truth).as_dict(),
            "last_validation": {"step": step, "scores": observed["scores"], "is_bona_fide": is_bona_fide},
        }
        return figures, kept

    def epoch_completed(self, state: TrainState) -> None:
        """Set the learning rate of the next step; with --swa take the epoch into the mean where it belongs there."""
        self.history_restored(state)
        if self.options.swa:
            state.kept[SWA] = self._mean(state, state.history)

    def last_pass(self, state: TrainState, completed: History) -> LastPass | None:
        """Return that of --swa, which gives the mean its batch-norm statistics; None where there is nothing to give."""
        mean = self._mean(state, completed) if self.options.swa else None
        network = state.networks["model"]
        if not mean or not has_batch_norm(network):
            return None
        return StatisticsAnew(network, mean, (self.options.seed, completed.epoch))

    def _mean(self, state: TrainState, completed: History) -> Mapping[str, Any] | None:
        """Return the mean of --swa with the epoch that was completed last, where that joins; None before the first."""
        mean = state.kept[SWA]
        if joins(completed, self.options.swa_below):
            return with_epoch(mean, state.networks["model"], completed.epoch)
        return without_statistics(mean)

    def history_restored(self, state: TrainState) -> None:
        """Set the learning rate that the history, with the epoch completed last, gives the next step."""
        schedule = cast(LambdaLR, state.schedulers["scheduler"])
        apply_rates(state.optimizers["optimizer"], schedule, self.options, state.history)

    def frozen(self, networks: Networks) -> FrozenWeights | None:
        """Return a frozen front-end."""
        return frozen_weights(networks["model"])

    def exhibits(self, kept: Mapping[str, Any]) -> Sequence[Scores]:
        """Return the scores of the last validation."""
        stored = kept.get("last_validation")
        return [Scores(**stored)] if stored else []

    def folders_to_draw(self, epoch: int, run: RunDirectory, *, is_last: bool) -> Sequence[Path]:
        """Return one folder every --viz_frequency epochs, and one of its own at the end, with --visualize_attention."""
        if not self.options.visualize_attention:
            return ()
        frequency = self.options.viz_frequency
        due = [run.attention_folder(epoch)] if frequency and epoch % frequency == 0 else []
        return [*due, *([run.final_attention_folder] if is_last else [])]

    def draw(self, networks: Networks, part: CorpusPart, folder: Path, stop: StopRequest) -> None:
        """Draw attention heatmaps into a folder."""
        from training.tasks.heatmaps import draw_part  # noqa: PLC0415  (matplotlib)

        draw_part(cast(Detector, networks["model"]), part, self.options.viz_samples, folder, self.device, stop=stop)

    def audio_examples(self, networks: Networks, part: CorpusPart, stop: StopRequest) -> Sequence[AudioExample]:
        """Return a few validation utterances of each class, with their scores."""
        return audio_examples(cast(Detector, networks["model"]), part, self.device, stop)


def _eer_percent(observed: Observed) -> float | None:
    """Return the EER of the scores so far, each given by the weights of its step; None before both classes came."""
    is_bona_fide = observed["labels"].numpy() == 1
    if is_bona_fide.all() or not is_bona_fide.any():
        return None
    return equal_error_rate(observed["scores"].numpy(), is_bona_fide).eer_percent
