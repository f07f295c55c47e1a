"""What one step of detection training does, on a detector of two layers and waveforms of eight samples."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.detector import Detector, DetectorOutput, DetectorSettings
from tests.comparing import differences
from training.checkpoints.history import History, UnfinishedEpoch
from training.data.loading import Batch
from training.data.shares import StepBatches
from training.loop.step import take_step
from training.settings.options import Options
from training.settings.tasks import DETECTION
from training.state.train_state import TrainState
from training.tasks.detection import DetectionTask
from training.tasks.losses import margin_contrastive_loss, supervised_contrastive_loss, weighted_cross_entropy
from training.tasks.schedule import make_schedule
from utils.errors import UserError

CPU = torch.device("cpu")
OPTIONS = Options(lr=1e-2, warmup_steps=4)
SAMPLES = 8


class SmallDetector(Detector):
    """Every utterance is judged alone, by sums of a fixed order: a batch of one gives the bits of a batch of many."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(DetectorSettings(ssl_model="compact", use_contrastive=True))
        self.hidden = nn.Parameter(torch.linspace(-1, 1, SAMPLES * 3).reshape(SAMPLES, 3))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Parameter(torch.tensor([[0.5, -0.5], [1.0, 0.25], [-0.75, 0.5]]))

    @property
    def front_end_config(self) -> dict[str, Any]:
        return {}

    def represent(self, waveform: Tensor) -> Tensor:
        return torch.tanh((waveform.unsqueeze(-1) * self.hidden).sum(dim=1))

    def decide(self, representation: Tensor) -> DetectorOutput:
        embedding = self.dropout(representation)
        logits = (embedding.unsqueeze(-1) * self.out).sum(dim=1)
        projection = nn.functional.normalize(embedding, dim=1)
        return DetectorOutput(logits.log_softmax(dim=1), embedding, projection)


def make_state(options: Options = OPTIONS, dropout: float = 0.0) -> TrainState:
    detector = SmallDetector(dropout)
    optimizer = torch.optim.Adam(detector.parameters(), lr=options.lr)
    schedule = make_schedule(optimizer, options, 100)
    history = History(DETECTION.figures, UnfinishedEpoch(10), (("a", 0),))
    return TrainState({"model": detector}, {"optimizer": optimizer}, {"scheduler": schedule}, history)


@dataclass(frozen=True, eq=False)
class Taken:
    """What a step gave, its batches joined."""

    loss: float
    scores: Tensor
    labels: Tensor


def step(task: DetectionTask, state: TrainState, *batches: Batch) -> Taken:
    result = take_step(state, task, StepBatches.whole(batches))
    scores, labels = (torch.cat([seen[name] for seen in result.observed]) for name in ("scores", "labels"))
    return Taken(result.loss, scores, labels)


def batch(size: int = 6, seed: int = 1) -> Batch:
    waveforms = torch.randn(size, SAMPLES, generator=torch.Generator().manual_seed(seed))
    return Batch(waveforms, torch.arange(size) % 2, torch.arange(size))


def output(state: TrainState, given: Batch) -> DetectorOutput:
    detector = state.networks["model"]
    assert isinstance(detector, Detector)
    return detector.analyse(given.waveforms)


def parts(state: TrainState) -> list[Any]:
    named = (state.networks["model"], state.optimizers["optimizer"], state.schedulers["scheduler"])
    return [copy.deepcopy(dict(part.state_dict())) for part in named]


def test_a_step_returns_the_loss_and_log_odds_of_before_the_step() -> None:
    state = make_state()
    given = batch()
    expected = output(state, given)
    result = step(DetectionTask(OPTIONS, CPU), state, given)
    assert result.loss == weighted_cross_entropy(expected.log_probabilities, given.labels).item()
    assert torch.equal(result.scores, expected.log_probabilities[:, 1] - expected.log_probabilities[:, 0])
    assert torch.equal(result.labels, given.labels)
    assert not result.scores.requires_grad


def test_a_step_moves_weights_and_schedule_once() -> None:
    state = make_state()
    before = parts(state)
    step(DetectionTask(OPTIONS, CPU), state, batch())
    assert differences(parts(state)[0], before[0]) != []
    assert state.learning_rate == pytest.approx(OPTIONS.lr * 2 / 4)  # the second step of the warm-up comes next
    assert state.step == 1


def test_steps_lower_the_loss() -> None:
    state, task = make_state(), DetectionTask(OPTIONS, CPU)
    losses = [step(task, state, batch()).loss for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (math.nan, "the loss is nan"),
        (math.inf, "the gradient's norm is nan"),  # tanh makes 1 of it, and 0 times infinity of its slope
    ],
)
@pytest.mark.parametrize("steps_before", [0, 3], ids=["first step", "fourth step"])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_anything_changes(
    value: float, what: str, steps_before: int
) -> None:
    state, task = make_state(), DetectionTask(OPTIONS, CPU)
    for _ in range(steps_before):
        step(task, state, batch())
    history = state.history
    history.step, history.epoch, history.under_way.batches_done = 20 + steps_before, 2, steps_before
    before = parts(state)
    spoiled = batch()
    spoiled.waveforms[2, 3] = value
    with pytest.raises(UserError, match=f"training diverged: {what} at step") as raised:
        step(task, state, spoiled)
    assert f"at step {21 + steps_before}, batch {1 + steps_before} of epoch 3" in str(raised.value)
    assert "--lr" in str(raised.value)
    assert differences(parts(state), before) == []


def test_gradients_of_an_earlier_step_do_not_add_up() -> None:
    once, twice = make_state(), make_state()
    task = DetectionTask(OPTIONS, CPU)
    weighted_cross_entropy(output(twice, batch(seed=5)).log_probabilities, batch(seed=5).labels).backward()  # type: ignore[no-untyped-call]
    for state in (once, twice):
        step(task, state, batch())
    assert differences(parts(once), parts(twice)) == []


def test_dropout_depends_on_seed_and_step_alone() -> None:
    def loss(seed: int, at: int, drawn_before: int) -> float:
        options = OPTIONS.replaced(seed=seed)
        state = make_state(options, dropout=0.5)
        state.history.step = at
        torch.rand(drawn_before)
        return step(DetectionTask(options, CPU), state, batch()).loss

    assert loss(1, 7, 0) == loss(1, 7, 13)
    assert len({loss(1, 7, 0), loss(1, 8, 0), loss(2, 7, 0)}) == 3


def test_the_contrastive_terms_enter_the_loss_with_their_weights() -> None:
    state, given = make_state(), batch()
    made = output(state, given)
    assert made.embedding is not None and made.projection is not None
    plain = weighted_cross_entropy(made.log_probabilities, given.labels)
    margin = margin_contrastive_loss(made.embedding, given.labels)
    supervised = supervised_contrastive_loss(made.projection, given.labels)
    assert margin > 0
    assert supervised > 0

    def loss(**settings: Any) -> float:
        return step(DetectionTask(OPTIONS.replaced(**settings), CPU), make_state(), given).loss

    assert loss() == plain.item()
    assert loss(contrastive_weight=9.0) == plain.item(), "without --use_contrastive the weights mean nothing"
    for weights in ((0.1, 0.1), (2.0, 0.0), (0.0, 3.0), (0.0, 0.0)):
        expected = plain + weights[0] * margin + weights[1] * supervised
        found = loss(use_contrastive=True, contrastive_weight=weights[0], supcon_weight=weights[1])
        assert found == pytest.approx(expected.item(), rel=1e-6)


def test_the_contrastive_terms_move_the_weights() -> None:
    moved = []
    for weight in (0.0, 1.0):
        state = make_state()
        options = OPTIONS.replaced(use_contrastive=True, contrastive_weight=weight, supcon_weight=weight)
        step(DetectionTask(options, CPU), state, batch())
        optimizer_state = state.optimizers["optimizer"].state_dict()["state"]
        moved.append(optimizer_state[0]["exp_avg"])
    assert not torch.equal(*moved)


def part_of(whole: Batch, start: int, end: int) -> Batch:
    return Batch(*(tensor[start:end] for tensor in (whole.waveforms, whole.labels, whole.indices)))


@pytest.mark.parametrize("loss", ["CCE", "focal", "oc_softmax"])
def test_accumulated_steps_are_those_of_one_large_batch(loss: str) -> None:
    """Also where the batches differ in size and hold the classes in other proportions, here one none of bona fide."""
    options = OPTIONS.replaced(loss=loss, class_weights=(0.1, 0.9))
    whole = batch(12)
    whole = Batch(whole.waveforms, torch.tensor([0, 0, 0, 0, 1, 0, 0, 1, 1, 1, 0, 1]), whole.indices)
    groups = [(whole,), (part_of(whole, 0, 4), part_of(whole, 4, 9), part_of(whole, 9, 12))]
    made = []
    for group in groups:
        state, task = make_state(options), DetectionTask(options, CPU)
        results = [step(task, state, *group) for _ in range(5)]
        made.append((state.networks["model"].state_dict(), results))
    (weights, large), (accumulated_weights, accumulated) = made
    torch.testing.assert_close(accumulated_weights, weights, rtol=1e-5, atol=1e-6)
    for one, other in zip(large, accumulated, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        torch.testing.assert_close(other.scores, one.scores, rtol=1e-4, atol=1e-4)
        assert torch.equal(other.labels, one.labels)


def test_contrastive_terms_of_accumulated_batches_count_by_their_share_of_the_utterances() -> None:
    options = OPTIONS.replaced(use_contrastive=True, contrastive_weight=2.0, supcon_weight=0.5)
    whole = batch(12)
    parts_of_it = [part_of(whole, 0, 4), part_of(whole, 4, 12)]
    plain = weighted_cross_entropy(output(make_state(), whole).log_probabilities, whole.labels).item()
    terms = []
    for part in parts_of_it:
        made = output(make_state(), part)
        assert made.embedding is not None and made.projection is not None
        margin = margin_contrastive_loss(made.embedding, part.labels).item()
        terms.append(2.0 * margin + 0.5 * supervised_contrastive_loss(made.projection, part.labels).item())
    found = step(DetectionTask(options, CPU), make_state(options), *parts_of_it).loss
    assert found == pytest.approx(plain + terms[0] / 3 + 2 * terms[1] / 3, rel=1e-5)


def test_each_of_the_accumulated_batches_has_its_own_dropout() -> None:
    def scores_of(*batches: Batch) -> Tensor:
        return step(DetectionTask(OPTIONS, CPU), make_state(dropout=0.5), *batches).scores

    first, second = scores_of(batch(), batch()).reshape(2, 6)
    assert not torch.equal(first, second)
    assert torch.equal(first, scores_of(batch())), "the first one's is that of a step of one batch"


def test_a_loss_that_is_not_finite_names_the_batches_of_its_step() -> None:
    spoiled = batch()
    spoiled.waveforms[2, 3] = math.nan
    state = make_state()
    state.history.under_way.batches_done = 4
    with pytest.raises(UserError, match=r"at step 1, batches 5 to 6 of epoch 1.*the audio of those batches"):
        step(DetectionTask(OPTIONS, CPU), state, batch(), spoiled)


@pytest.mark.parametrize(("limit", "is_shorter"), [(1e-3, True), (1e3, False)])
def test_a_gradient_is_clipped_to_the_given_norm_where_it_is_longer(limit: float, is_shorter: bool) -> None:
    def gradient(options: Options) -> Tensor:
        state = make_state(options)
        step(DetectionTask(options, CPU), state, batch())
        return torch.cat([p.grad.flatten() for p in state.networks["model"].parameters() if p.grad is not None])

    whole, clipped = gradient(OPTIONS), gradient(OPTIONS.replaced(clip_grad_norm=limit))
    if is_shorter:
        torch.testing.assert_close(clipped, whole * limit / whole.norm(), rtol=1e-3, atol=0)
    else:
        assert torch.equal(clipped, whole)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 11])
def test_the_validation_loss_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    """Means of batches would: the weights of the classes differ, and so does the size of the last batch."""
    state, task = make_state(), DetectionTask(OPTIONS, CPU)
    whole = batch(11)
    parts_of_it = [
        Batch(*(tensor[start : start + batch_size] for tensor in (whole.waveforms, whole.labels, whole.indices)))
        for start in range(0, 11, batch_size)
    ]
    results = [task.validation_step(state, part) for part in parts_of_it]
    joined = {name: torch.cat([seen[name] for seen in results]) for name in results[0]}
    loss = task.validated(0, joined)[0]["val_loss"]
    expected = weighted_cross_entropy(output(state, whole).log_probabilities.double(), whole.labels).item()
    assert loss == pytest.approx(expected, rel=1e-6)
    assert torch.equal(joined["scores"], task.validation_step(state, whole)["scores"])
    assert torch.equal(joined["labels"], whole.labels)


def test_validation_changes_nothing_and_draws_nothing() -> None:
    state = make_state(dropout=0.5)
    state.networks["model"].eval()
    before, drawn = parts(state), torch.get_rng_state()
    result = DetectionTask(OPTIONS, CPU).validation_step(state, batch())
    assert differences(parts(state), before) == []
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not result["scores"].requires_grad


def test_the_validation_loss_leaves_the_contrastive_terms_out() -> None:
    """They compare utterances of one batch, so they would make it depend on the batch size."""
    results = [
        DetectionTask(OPTIONS.replaced(use_contrastive=flag), CPU).validation_step(make_state(), batch())
        for flag in (False, True)
    ]
    assert torch.equal(results[0]["loss_sums"], results[1]["loss_sums"])


def test_bf16_keeps_weights_and_scores_in_float32() -> None:
    options = OPTIONS.replaced(precision="bf16")
    state = make_state(options)
    result = step(DetectionTask(options, CPU), state, batch())
    assert result.scores.dtype == torch.float32
    assert {p.dtype for p in state.networks["model"].parameters()} == {torch.float32}
