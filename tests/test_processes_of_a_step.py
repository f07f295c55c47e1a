"""The same bits on any number of processes: one detector with batch norm and dropout, its steps shared out for real."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models import running_statistics
from models.batch_norm import BatchNorm1d, BatchNorm2d
from models.detector import Detector, DetectorOutput, DetectorSettings
from tests.comparing import differences
from tests.several import on_processes
from training.checkpoints.history import History, UnfinishedEpoch
from training.data.loading import Batch
from training.data.shares import Share, StepBatches
from training.loop import exchange, gradients, same_state, step
from training.loop.batch_tree import Node, joined, nodes_of, sum_of
from training.settings.options import Options
from training.settings.tasks import DETECTION
from training.state.loss_scaler import LossScaler
from training.state.train_state import TrainState
from training.tasks.detection import DetectionTask
from training.tasks.schedule import make_schedule
from utils.errors import UserError
from utils.ranks import Alone, Ranks

SAMPLES = 24
EIGHT = "eight batches, the last step of three"
OVERFLOWING = "eight in fp16, of whose first step one batch overflows"
SCALE = 2.0**18
CASES = {
    "four batches": (4, (4, 4, 3), "fp32"),
    "six, of which two or three are no subtree": (6, (6, 5), "fp32"),
    EIGHT: (8, (8, 3), "fp32"),
    "eight in bf16": (8, (8, 5), "bf16"),
    OVERFLOWING: (8, (8, 5), "fp16"),
}


class SeveralNorms(Detector):
    """Batch norm in both layouts, dropout, a frozen weight, one that some batches do not reach, one that none does."""

    def __init__(self) -> None:
        super().__init__(DetectorSettings(ssl_model="compact", use_contrastive=True))
        self.first = nn.Conv2d(1, 4, 3)
        self.norm = BatchNorm2d(4)
        self.second = nn.Linear(4, 5)
        self.norms = BatchNorm1d(5)
        self.dropout = nn.Dropout(0.3)
        self.now_and_then = nn.Parameter(torch.linspace(-1, 1, 5))
        self.never = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.linspace(0.5, 1.5, 5), requires_grad=False)
        self.last = nn.Linear(5, 2)

    @property
    def front_end_config(self) -> dict[str, Any]:
        return {}

    def represent(self, waveform: Tensor) -> Tensor:
        maps = waveform.view(-1, 1, 4, 6).contiguous(memory_format=torch.channels_last)
        return torch.tanh(self.second(self.norm(self.first(maps)).mean(dim=(2, 3))))

    def decide(self, representation: Tensor) -> DetectorOutput:
        embedding = self.dropout(self.norms(representation)) * self.frozen
        if representation.detach()[0, 0] > 0:
            embedding = embedding * self.now_and_then
        return DetectorOutput(
            self.last(embedding).log_softmax(dim=1), embedding, nn.functional.normalize(embedding, dim=1)
        )


def new_state(options: Options) -> TrainState:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        detector = SeveralNorms().train()
    optimizer = torch.optim.Adam(detector.parameters(), lr=options.lr)
    history = History(DETECTION.figures, UnfinishedEpoch(100), (("a", 0),))
    state = TrainState(
        {"model": detector},
        {"optimizer": optimizer},
        {"scheduler": make_schedule(optimizer, options, 100)},
        history,
        scaler=LossScaler(enabled=options.precision == "fp16"),
    )
    if state.scaler.is_enabled():
        state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": SCALE})
    return state


def batch(number: int) -> Batch:
    size = 3 + number % 3
    waveforms = torch.randn(size, SAMPLES, generator=torch.Generator().manual_seed(number))
    return Batch(waveforms, (torch.arange(size) + number) % 3 // 2, torch.arange(size))


def steps(share: Share, sizes: tuple[int, ...]) -> Iterator[StepBatches]:
    first = 0
    for size in sizes:
        whole = [batch(number) for number in range(first, first + size)]
        own = share.of_step(size)
        yield StepBatches(whole[own.start : own.stop], own.start, size, torch.cat([each.labels for each in whole]))
        first += size


def trained(ranks: Ranks, case: str) -> str:
    """Return a digest of all that a few steps leave behind: weights, moments, statistics, losses, scores, RNG."""
    batches_a_step, sizes, precision = CASES[case]
    options = Options(
        lr=1e-2, use_contrastive=True, precision=precision, clip_grad_norm=0.5, accumulate_steps=batches_a_step
    )
    state, task = new_state(options), DetectionTask(options, torch.device("cpu"))
    share = Share(ranks.index, ranks.count, batches_a_step)
    exchanging = exchange.Exchange(ranks.group, share) if ranks.count > 1 else None
    digest = hashlib.sha256()
    for given in steps(share, sizes):
        result = step.take_step(state, task, given, ranks, exchanging)
        digest.update(repr((result.loss, result.utterances)).encode())
        for observed in result.observed:
            update(digest, observed)
    update(digest, state.networks["model"].state_dict())
    update(digest, state.optimizers["optimizer"].state_dict())
    update(digest, state.scaler.state_dict())
    update(digest, torch.get_rng_state())
    return digest.hexdigest()


def update(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(value.numpy().tobytes())
    elif isinstance(value, dict):
        for name in value:
            digest.update(str(name).encode())
            update(digest, value[name])
    elif isinstance(value, list):
        for each in value:
            update(digest, each)
    else:
        digest.update(repr(value).encode())


def digests(ranks: Ranks) -> dict[str, str]:
    return {case: trained(ranks, case) for case, (of_step, _, _) in CASES.items() if of_step % ranks.count == 0}


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are many, of this small detector."""
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 64)


@pytest.fixture(scope="module")
def alone() -> dict[str, str]:
    with torch.random.fork_rng():
        return digests(Alone())


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_any_number_of_processes_ends_with_the_bits_of_one(count: int, alone: dict[str, str]) -> None:
    for found in on_processes(count, digests):
        assert found == {case: alone[case] for case in found} != {}


def an_all_reduce(patched: pytest.MonkeyPatch) -> None:
    """What DistributedDataParallel does, on gradients that each process adds up as they come."""

    def sent(exchanged: exchange.Exchanged, index: int, sums: list[Tensor | None]) -> None:
        found = [each for each in sums if each is not None]
        total = sum(found) if found else torch.zeros_like(exchanged._parameters[index])
        exchanged.__dict__.setdefault("totals", {})[index] = total

    def completed(exchanged: exchange.Exchanged) -> None:
        for index, parameter in enumerate(exchanged._parameters):
            total = exchanged.__dict__.get("totals", {}).get(index, torch.zeros_like(parameter))
            dist.all_reduce(total)
            parameter.grad = total if total.any() else None

    patched.setattr(exchange.Exchanged, "put", sent)
    patched.setattr(exchange.Exchanged, "complete", completed)


def norms_that_move_as_their_process_comes_by_batches(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(running_statistics.Statistics, "set_aside", lambda _: nullcontext())


def norms_that_move_in_another_order(patched: pytest.MonkeyPatch) -> None:
    told = step._told

    def others_first(*given: Any) -> Any:
        norm, parts = told(*given)
        moved = [replace(one, statistics=other.statistics) for one, other in zip(parts, parts[::-1], strict=True)]
        return norm, moved

    patched.setattr(step, "_told", others_first)


def dropout_by_the_number_in_the_process(patched: pytest.MonkeyPatch) -> None:
    seed = step._seed
    patched.setattr(step, "_seed", lambda task, at, number, phase: seed(task, at, number % 2, phase))


@pytest.mark.parametrize(
    "mutant",
    [
        an_all_reduce,
        norms_that_move_as_their_process_comes_by_batches,
        norms_that_move_in_another_order,
        dropout_by_the_number_in_the_process,
    ],
)
def test_it_shows_when_something_depends_on_the_process(
    mutant: Callable[[pytest.MonkeyPatch], None], alone: dict[str, str]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        mutant(patched)
        (found, *_) = on_processes(4, lambda ranks: trained(ranks, EIGHT))
    assert found != alone[EIGHT]


def test_a_batch_that_overflows_skips_the_update_in_every_process() -> None:
    def skipped(ranks: Ranks) -> tuple[float, int]:
        options = Options(lr=1e-2, precision="fp16", use_contrastive=True, accumulate_steps=8)
        state, task = new_state(options), DetectionTask(options, torch.device("cpu"))
        share = Share(ranks.index, ranks.count, 8)
        (given,) = steps(share, (8,))
        step.take_step(state, task, given, ranks, exchange.Exchange(ranks.group, share))
        same_state.require_same_state(state, ranks)
        state.scaler.load_state_dict({**state.scaler.state_dict(), "_growth_tracker": ranks.index})
        with pytest.raises(UserError, match=r"scaler\._growth_tracker for one"):
            same_state.require_same_state(state, ranks)
        return state.scaler.get_scale(), len(state.optimizers["optimizer"].state)

    assert on_processes(2, skipped) == [(SCALE / 2, 0)] * 2


def test_a_loss_that_is_not_finite_in_one_process_stops_all_before_anything_changes() -> None:
    def diverged(ranks: Ranks) -> tuple[str, bool]:
        options = Options(accumulate_steps=4)
        state, task = new_state(options), DetectionTask(options, torch.device("cpu"))
        before = copy.deepcopy(state.networks["model"].state_dict())
        share = Share(ranks.index, ranks.count, 4)
        (given,) = steps(share, (4,))
        if ranks.index == 1:
            given.batches[0].waveforms[:] = torch.nan
        with pytest.raises(UserError) as raised:
            step.take_step(state, task, given, ranks, exchange.Exchange(ranks.group, share))
        return str(raised.value), not differences(before, state.networks["model"].state_dict())

    first, second = on_processes(2, diverged)
    assert first == second
    assert first[0].startswith("training diverged: the loss is nan at step 1, batches 1 to 4 of epoch 1")
    assert first[1]


def test_a_process_whose_state_is_another_is_named_by_all() -> None:
    def required(ranks: Ranks) -> str:
        state = new_state(Options())
        same_state.require_same_state(state, ranks)
        if ranks.index == 1:
            state.networks["model"].norms.running_var[2] += 1e-6  # type: ignore[operator, index, union-attr]
        with pytest.raises(UserError) as raised:
            same_state.require_same_state(state, ranks)
        return str(raised.value)

    for message in on_processes(2, required):
        assert message.startswith("process 1 does not hold the state of process 0 any more: 1 of ")
        assert "model.norms.running_var" in message


def test_no_number_is_sent_more_often_than_by_the_ring_of_an_all_reduce() -> None:
    """Each process sends all but its own slice once, and its sum to all others: 2 (W - 1) / W of the gradient."""

    def sent(ranks: Ranks) -> int:
        exchanging = exchange.Exchange(ranks.group, Share(ranks.index, ranks.count, 4))
        parameters = [torch.zeros(1000, requires_grad=True) for _ in range(8)]
        adding = gradients.Gradients(parameters, range(ranks.index, ranks.index + 1), 4, exchanging)
        with adding.of_batch(ranks.index):
            torch.cat(parameters).sum().backward()  # type: ignore[no-untyped-call]
        adding.complete()
        assert all(torch.equal(parameter.grad, torch.full((1000,), 4.0)) for parameter in parameters)  # type: ignore[arg-type]
        return exchanging.bytes_sent

    for found in on_processes(4, sent):
        assert found == pytest.approx(2 * 3 / 4 * 8 * 1000 * 4, rel=0.01)


def test_the_buckets_of_a_step_lie_in_the_memory_of_those_before_and_the_gradients_are_what_they_were() -> None:
    """Three buckets a step of two sizes; a gradient lies in the memory of its bucket until the next step begins."""

    def found(ranks: Ranks) -> tuple[list[int], list[list[float]]]:
        exchanging = exchange.Exchange(ranks.group, Share(ranks.index, ranks.count, 2))
        parameters = [torch.zeros(size, requires_grad=True) for size in (900, 100, 700)]
        taken: list[int] = []
        first_of_each: list[list[float]] = []
        for number in range(3):
            adding = gradients.Gradients(parameters, range(ranks.index, ranks.index + 1), 2, exchanging)
            with adding.of_batch(ranks.index):
                (torch.cat(parameters).sum() * (1 + number + 10 * ranks.index)).backward()  # type: ignore[no-untyped-call]
            adding.complete()
            assert exchanging._free
            taken.append(sum(one.numel() for one in [*exchanging._free, *(memory for memory, _ in exchanging._lent)]))
            first_of_each.append([float(parameter.grad[-1]) for parameter in parameters])  # type: ignore[index]
            for parameter in parameters:
                parameter.grad = None
        return taken, first_of_each

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "BUCKET_BYTES", 1200)
        for taken, gradient in on_processes(2, found):
            assert taken[0] == taken[1] == taken[2] > 0
            assert gradient == [[12.0] * 3, [14.0] * 3, [16.0] * 3]


def test_what_a_later_phase_adds_to_the_gradients_of_an_earlier_one_disturbs_no_sum() -> None:
    """As where a generator's loss reaches its critic, which stepped before."""

    def found(ranks: Ranks) -> set[float]:
        exchanging = exchange.Exchange(ranks.group, Share(ranks.index, ranks.count, 2))
        critic, generator = (torch.ones(500, requires_grad=True) for _ in range(2))
        for stepping in (critic, generator):
            stepping.grad = None
            adding = gradients.Gradients([stepping], range(ranks.index, ranks.index + 1), 2, exchanging)
            with adding.of_batch(ranks.index):
                (3 * critic.sum() + generator.sum()).backward()  # type: ignore[no-untyped-call]
            adding.complete()
        assert generator.grad is not None
        return set(generator.grad.tolist())

    assert on_processes(2, found) == [{2.0}, {2.0}]


@pytest.mark.parametrize("num_batches", range(1, 18))
def test_the_tree_is_the_same_however_neighbouring_batches_are_shared_out(num_batches: int) -> None:
    def whole(parts: list[range]) -> str:
        sums = []
        for part in parts:
            waiting: list[tuple[Node, str]] = []
            for number in part:
                node, taken = joined([held for held, _ in waiting], (0, number), num_batches)
                text = str(number)
                for _ in range(taken):
                    text = f"({waiting.pop()[1]}+{text})"
                waiting.append((node, text))
            assert [node for node, _ in waiting] == nodes_of(part, num_batches)
            sums += waiting
        return sum_of(sums, num_batches, lambda left, right: f"({left}+{right})")

    expected = whole([range(num_batches)])
    for each in range(1, num_batches + 1):
        parts = [range(first, min(first + each, num_batches)) for first in range(0, num_batches, each)]
        assert whole(parts) == expected


def test_one_process_holds_no_more_sums_than_are_said() -> None:
    for num_batches in range(2, 65):
        most, nodes = 0, list[Node]()
        for number in range(num_batches):
            newest = nodes.pop() if nodes else None
            if newest is not None and (newest != (0, number - 1) or number % 2 == 0):
                nodes.append(newest)
                newest = None
            most = max(most, len(nodes))
            node, taken = joined(nodes, (1, number // 2) if newest else (0, number), num_batches)
            nodes = [*nodes[: len(nodes) - taken], node]
        assert most <= math.ceil(math.log2(num_batches)) - 1
