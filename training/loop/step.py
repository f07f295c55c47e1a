"""One step, the same for every task: losses, gradients added up in order, checks, clipping, the optimizers in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from training.data.loading import Batch
from training.state.train_state import Observed, TrainState
from training.tasks.task import Step, Task
from utils.errors import UserError
from utils.seeding import derive_seed


@dataclass(frozen=True, eq=False)
class StepResult:
    """What one step gave: the sum of its phases' losses, how many utterances it had, what each batch observed."""

    loss: float
    utterances: int
    observed: tuple[Observed, ...]


def take_step(state: TrainState, task: Task, batches: Sequence[Batch]) -> StepResult:
    """Step every optimizer of the task once, in the order of its phases, over one batch or several.

    Raises UserError where the loss or the gradient of a phase is not finite, before that phase changes anything.
    """
    labels = torch.cat([batch.labels for batch in batches])
    total, observed = 0.0, []
    for phase, schedule in task.phases.items():
        optimizer = state.optimizers[phase]
        optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for number, batch in enumerate(batches):
            _seed(task, state.step, number, phase)
            part = task.loss(state, batch.to(task.device), Step(labels, phase))
            loss += part.value.item()
            part.value.backward()  # type: ignore[no-untyped-call]
            observed.append(part.observed)
        parameters = _parameters_of(optimizer)
        norm = _require_finite(loss, parameters, state, len(batches))
        if task.options.clip_grad_norm is not None:
            clip_grads_with_norm_(parameters, task.options.clip_grad_norm, norm)
        optimizer.step()
        state.schedulers[schedule].step()
        total += loss
    state.history.step += 1
    return StepResult(total, len(labels), tuple(observed))


def _seed(task: Task, step: int, number: int, phase: str) -> None:
    """Make dropout depend on nothing but the position: the step, the batch's number in it, from 0, and the phase."""
    position: tuple[int | str, ...] = (step, number) if number else (step,)
    if phase != next(iter(task.phases)):
        position = (step, number, phase)
    torch.manual_seed(derive_seed("step", task.options.seed, *position))


def _parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _require_finite(loss: float, parameters: Sequence[Tensor], state: TrainState, num_batches: int) -> Tensor:
    """Return the norm of the gradient."""
    norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if math.isfinite(loss) and math.isfinite(norm.item()):
        return norm
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm.item()}"
    first = state.history.under_way.batches_done + 1
    where = f"batch {first}" if num_batches == 1 else f"batches {first} to {first + num_batches - 1}"
    raise UserError(
        f"training diverged: {what} at step {state.step + 1}, {where} of epoch "
        f"{state.epoch + 1}. Nothing was saved over: resume from an earlier checkpoint with a lower --lr or more "
        f"--warmup_steps, and look at the audio of {'that batch' if num_batches == 1 else 'those batches'}"
    )
