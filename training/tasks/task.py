"""What a run trains, as the loop sees it: the Task, and what it hands to the loop and to the reports.

A task says how its networks are built, what its loss is and which figures it gives. The loop owns the rest, once for
all tasks: it adds the gradients of a step's batches in a fixed order, checks that they are finite, clips them, steps
the optimizer of the phase and its schedule, gathers what was observed, saves, stops and goes on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from training.checkpoints.frozen_weights import FrozenWeights
from training.checkpoints.history import History
from training.checkpoints.weights import Weights
from training.data.batches import TrainingBatches, ValidationBatches
from training.data.loading import Batch
from training.runs.directory import RunDirectory
from training.settings.options import Options
from training.settings.tasks import TaskDescription
from training.state.train_state import Observed, TrainState
from utils.corpora import Corpus, CorpusPart
from utils.errors import UserError
from utils.interruption import StopRequest

Payload = Mapping[str, Any]
Networks = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Built:
    """Networks by name, on the CPU, and what a checkpoint must hold beside their weights to build them again.

    `builds` are plain values by the keys of the payload. `reused` are the networks that a file of weights for reuse
    has, and `remark` is what must be said of the weights that they start from.
    """

    networks: dict[str, nn.Module]
    builds: Mapping[str, Any] = field(default_factory=dict)
    reused: tuple[str, ...] = ("model",)
    remark: str = ""


@dataclass(frozen=True)
class Step:
    """What the losses of one step must know of all its batches together, on the CPU.

    `labels` (utterances,) are in the order of training; `phase` is the name of the optimizer that steps next. `own` is
    how many of its batches this process has: that may decide what is kept, but no number.
    """

    labels: Tensor
    phase: str
    own: int = 1

    @property
    def num_utterances(self) -> int:
        """How many utterances the step has."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Loss:
    """The part of a step's loss that one batch has, a scalar to go back from, and what was observed on the way.

    The parts of a step's batches add up to its loss. `observed` has values of the batch's utterances, without gradient,
    on whatever device: the loop takes them to the CPU once the step is computed.
    """

    value: Tensor
    observed: Observed = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scores:
    """An exhibit: the scores of a validation after `step` steps, from which a DET curve and a histogram are drawn.

    `scores` (utterances,) float32 are log-odds, higher for bona fide; `is_bona_fide` (utterances,) are booleans.
    """

    step: int
    scores: Tensor
    is_bona_fide: Tensor


@dataclass(frozen=True, eq=False)
class AudioExample:
    """An exhibit: an utterance (samples,) float32 at `rate` Hz, what it is, and a figure of it.

    `measure` says which figure `score` is.
    """

    name: str
    label: str
    score: float
    waveform: Any
    rate: int
    measure: str = "score"


@dataclass(frozen=True, eq=False)
class Spectrogram:
    """An exhibit: `bands` (bands, frames), the logarithms of an utterance's mel bands, the lowest first."""

    title: str
    bands: Tensor


Exhibit = Scores | Spectrogram
"""What the run page shows beside figures; a task returns any number of them."""


class LastPass(Protocol):
    """What a task makes of the whole training part once more, before the last epoch is completed.

    The batches are those that the epoch after it would train on; `label` is shown beside the progress. Processes that
    share them out `take` each its own, and `add` all of them, in the order of the epoch.
    """

    label: str

    def take(self, batch: Batch, number: int) -> Any:
        """Return what a batch gives, on the CPU; it is on the device, and number `number` of the epoch, from 0.

        The state stays as it is.
        """

    def add(self, part: Any) -> None:
        """Take in what one batch gave."""

    def kept(self) -> Mapping[str, Any]:
        """Return what of it all is kept in the state, by name, after the last batch."""


class Task(ABC):
    """One way of training. Made anew for each run, from its options and the device that it computes on.

    `phases` name the optimizers in the order in which they step, each with the schedule that steps after it.
    `keeps` are the keys of the payload under which `validated` or `epoch_completed` keeps something, `recorded` those
    of them that the record has, too: plain values with a `step`.
    """

    description: ClassVar[TaskDescription]
    phases: ClassVar[Mapping[str, str]]
    keeps: tuple[str, ...] = ()
    recorded: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: Options, device: torch.device) -> None:
        self.options = options
        self.device = device

    @abstractmethod
    def build(self, source: Payload | Weights | None) -> Built:
        """Return the networks: new ones, with the weights of a file, or empty ones of the shape in a payload.

        The weights of a payload are put into them later, by `TrainState.restore`. Raises UserError where weights cannot
        be had or do not fit.
        """

    @abstractmethod
    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """Return one optimizer for each phase, by its name, over parameters that are on their device already."""

    @abstractmethod
    def schedules(self, optimizers: Mapping[str, Optimizer], total_steps: int) -> dict[str, LRScheduler]:
        """Return the schedules by their names in `phases`, for a run that will have made `total_steps`."""

    def refuse_missing_packages(self) -> None:  # noqa: B027 - most need none beside those of the program
        """Raise UserError where training needs a package that is not installed."""

    def heard(self, part: CorpusPart) -> CorpusPart:
        """Return what of a part is trained on, or validated on; raises UserError where there is none."""
        return part

    @abstractmethod
    def batches(self, corpus: Corpus, train: CorpusPart) -> tuple[TrainingBatches, ValidationBatches]:
        """Return what is trained on, of the part `train`, and what is validated on, of the corpus.

        Both hold only what is `heard`.
        """

    @abstractmethod
    def loss(self, state: TrainState, batch: Batch, step: Step) -> Loss:
        """Return the loss of one batch, which is on the device, with the networks in training mode."""

    @property
    def nothing_observed(self) -> Observed:
        """What an epoch has observed before its first step: an empty tensor of the right type for each name."""
        return {}

    @abstractmethod
    def train_figures(self, mean_loss: float, observed: Observed) -> dict[str, float]:
        """Return the figures of training that a whole epoch gives, by name."""

    def running_figure(self, observed: Callable[[], Observed]) -> str:  # noqa: ARG002 - others look
        """Return a figure of the epoch so far, as shown beside the progress; "" for none. Called now and then."""
        return ""

    @abstractmethod
    def validation_step(self, state: TrainState, batch: Batch) -> Observed:
        """Return what one validation batch gives, without touching the state; the networks are in evaluation mode."""

    @abstractmethod
    def validated(self, step: int, observed: Observed) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the figures of a validation after `step` steps, and what of it is kept in the state, by name.

        What is kept are tensors and plain values.
        """

    def epoch_completed(self, state: TrainState) -> None:  # noqa: B027 - most have nothing to do
        """Change what follows from the history with the epoch just completed: a learning rate, say.

        Called once for each epoch, before its checkpoint is written.
        """

    def last_pass(self, state: TrainState, completed: History) -> LastPass | None:  # noqa: ARG002 - others look
        """Return what the training part is passed through once more at the end of training; None for nothing.

        `state` is that of before the last epoch is completed, and `completed` the history with it.
        """
        return None

    def history_restored(self, state: TrainState) -> None:
        """Change what follows from the history and the options of a run that goes on."""
        self.epoch_completed(state)

    def frozen(self, networks: Networks) -> FrozenWeights | None:  # noqa: ARG002 - others look
        """Return the weights that training never changes, to be stored once per run; None for nothing."""
        return None

    def exhibits(self, kept: Mapping[str, Any]) -> Sequence[Exhibit]:  # noqa: ARG002 - others look
        """Return what the page shows of the last validation, of which `kept` is what the state or a payload has."""
        return ()

    def folders_to_draw(self, epoch: int, run: RunDirectory, *, is_last: bool) -> Sequence[Path]:  # noqa: ARG002
        """Return the folders into which pictures are to be drawn after an epoch; none where nothing was asked for."""
        return ()

    def draw(self, networks: Networks, part: CorpusPart, folder: Path, stop: StopRequest) -> None:  # noqa: ARG002
        """Draw pictures of the networks as they are into a folder; raises OSError.

        Raises StopAskedError where `stop` comes while audio is read.
        """
        raise UserError(f"there is nothing to draw of {self.options.model_type}: drop --visualize_attention")

    def audio_examples(self, networks: Networks, part: CorpusPart, stop: StopRequest) -> Sequence[AudioExample]:  # noqa: ARG002
        """Return utterances to listen to, which --log_audio sends to W&B; raises StopAskedError as `draw` does."""
        return ()
