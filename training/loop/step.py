"""One step, the same for every task and any number of processes: losses, gradients in a fixed tree, checks, updates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from models.running_statistics import OfBatch, Statistics
from training.data.shares import StepBatches
from training.loop.exchange import Exchange
from training.loop.gradients import Gradients
from training.state.train_state import Observed, TrainState
from training.tasks.task import Step, Task
from utils.errors import UserError
from utils.ranks import Alone, Ranks
from utils.seeding import derive_seed


@dataclass(frozen=True, eq=False)
class StepResult:
    """What one step gave: the sum of its phases' losses, how many utterances it had, what each batch observed."""

    loss: float
    utterances: int
    observed: tuple[Observed, ...]


@dataclass(frozen=True, eq=False)
class _Part:
    """What one batch gave in one phase: its part of the loss, a scalar, what was observed, its norms' statistics."""

    loss: Tensor
    observed: Observed
    statistics: OfBatch


def take_step(
    state: TrainState, task: Task, given: StepBatches, ranks: Ranks | None = None, exchange: Exchange | None = None
) -> StepResult:
    """Step every optimizer of the task once, in the order of its phases, over the batches of one step.

    Where processes share it out, each has its batches in `given`, and all come to the same state and result, whose bits
    do not depend on how many they are. Raises UserError where the loss or the gradient of a phase is not finite, before
    that phase changes anything. With a loss scale a gradient that is not finite skips the update of its phase, which
    leaves weights and running statistics as they are, and lowers the scale; the step counts as every other.
    """
    ranks = ranks or Alone()
    total, observed = 0.0, []
    for phase, schedule in task.phases.items():
        optimizer = state.optimizers[phase]
        optimizer.zero_grad(set_to_none=True)
        parameters = _parameters_of(optimizer)
        statistics = Statistics(state.networks.values())
        gradients = Gradients(parameters, given.own, given.num_batches, exchange)
        own: list[_Part] = []
        with statistics.set_aside():
            for number, batch in given.numbered():
                _seed(task, state.step, number, phase)
                with gradients.of_batch(number):
                    part = task.loss(state, batch.to(task.device), Step(given.labels, phase, len(given.batches)))
                    state.scaler.scale(part.value).backward()  # type: ignore[no-untyped-call]
                own.append(_Part(part.value.detach(), part.observed, statistics.taken()))
        gradients.complete()
        state.scaler.unscale_(optimizer)
        norm, parts = _told(own, _norm_of(parameters), ranks)
        loss = sum((found.loss.item() for found in parts), 0.0)
        _require_finite(loss, norm.item(), state, given.num_batches)
        is_skipped = state.scaler.skips(optimizer, norm.item())
        if not is_skipped:
            for found in parts:
                statistics.move(found.statistics)
            if task.options.clip_grad_norm is not None:
                clip_grads_with_norm_(parameters, task.options.clip_grad_norm, norm.to(task.device))
            optimizer.step()
        with _unwarned() if is_skipped else nullcontext():
            state.schedulers[schedule].step()
        total += loss
        observed += [found.observed for found in parts]
    state.scaler.update()
    _seed(task, state.step, given.num_batches, "after the step")  # the same whoever had the last batch
    state.history.step += 1
    return StepResult(total, len(given.labels), tuple(observed))


def _seed(task: Task, step: int, number: int, phase: str) -> None:
    """Make dropout depend on nothing but the position: the step, the batch's number in it, from 0, and the phase."""
    position: tuple[int | str, ...] = (step, number) if number else (step,)
    if phase != next(iter(task.phases)):
        position = (step, number, phase)
    torch.manual_seed(derive_seed("step", task.options.seed, *position))


def _parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _norm_of(parameters: Sequence[Tensor]) -> Tensor:
    return get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def _told(own: Sequence[_Part], norm: Tensor, ranks: Ranks) -> tuple[Tensor, list[_Part]]:
    """Return on the CPU the norm, as the first process has it, and the parts of all processes in their order.

    All that is computed is awaited here, once. Statistics of batch norm stay on their device where no other process
    needs them.
    """
    is_on_gpu = norm.is_cuda

    def on_cpu(tensor: Tensor) -> Tensor:
        return tensor.to("cpu", non_blocking=is_on_gpu)

    told = [
        _Part(
            on_cpu(part.loss),
            {name: on_cpu(values) for name, values in part.observed.items()},
            replace(part.statistics, numbers=on_cpu(part.statistics.numbers)) if ranks.count > 1 else part.statistics,
        )
        for part in own
    ]
    norm = on_cpu(norm)
    if is_on_gpu:
        torch.cuda.current_stream().synchronize()
    gathered = ranks.gather((norm, told))
    return gathered[0][0], [part for _, parts in gathered for part in parts]


@contextmanager
def _unwarned() -> Iterator[None]:
    """Let a schedule take a step before its optimizer took any, of which torch warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        yield


def _require_finite(loss: float, norm: float, state: TrainState, num_batches: int) -> None:
    scaler = state.scaler
    if math.isfinite(loss) and (math.isfinite(norm) or not scaler.is_at_its_least):
        return
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
    remedy = ""
    if scaler.is_enabled():
        what += f" with the loss scaled by {scaler.get_scale():g}"
        remedy = ", or with --precision bf16 or fp32, which hold larger numbers"
    first = state.history.under_way.batches_done + 1
    where = f"batch {first}" if num_batches == 1 else f"batches {first} to {first + num_batches - 1}"
    raise UserError(
        f"training diverged: {what} at step {state.step + 1}, {where} of epoch "
        f"{state.epoch + 1}. Nothing was saved over: resume from an earlier checkpoint with a lower --lr or more "
        f"--warmup_steps{remedy}, and look at the audio of {'that batch' if num_batches == 1 else 'those batches'}"
    )
