"""Buffers that batches move, moved in the order of a step's batches, whoever computed which of them.

They are the running statistics of batch norm, and the vectors of spectral norm (`models/normed_convolutions.py`).

    statistics = Statistics(networks)
    with statistics.set_aside():
        for batch in batches:
            loss(batch).backward()
            found.append(statistics.taken())      # those of this batch
    for of_batch in found:                        # or those of all processes, in the order of the batches
        statistics.move(of_batch)

Outside such a block a norm moves its buffers at once, by the same arithmetic (tests/test_running_statistics.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class Rule(IntEnum):
    """How the mean of old and new is rounded, the first two as torch does on a CPU; or that nothing old is left."""

    VARIANCE_IN_FLOAT64 = 0
    """The variance of maps that have the type of the statistics; the mean is rounded after each operation."""
    AS_STORED = 1
    """Of maps of less precision: after each operation."""
    IN_FLOAT64 = 2
    """Once, at the end."""
    REPLACED = 3
    """The new is taken as it is."""


@dataclass(frozen=True, eq=False)
class OfCall:
    """What one batch moves the buffers of one norm by, `norm.numbers_a_call` in float64, and by which rule."""

    rule: Rule
    numbers: Tensor


@dataclass(frozen=True, eq=False)
class OfBatch:
    """What all norms have of one batch: the rules of each norm's calls, and all numbers one after the other."""

    rules: tuple[tuple[Rule, ...], ...]
    numbers: Tensor


def normalises_by_batch(network: nn.Module) -> bool:
    """Whether in training what it says of one utterance depends on the others in its batch."""
    return any(isinstance(part, _BatchNorm) for part in network.modules())


class SetsAside(nn.Module):
    """A norm that can set aside what batches move its buffers by: while `set_aside` is a list, into that."""

    set_aside: list[OfCall] | None = None

    @property
    @abstractmethod
    def numbers_a_call(self) -> int:
        """How many numbers a call sets aside."""

    @abstractmethod
    def move(self, found: OfCall) -> None:
        """Move the buffers by what one call set aside, on their device."""


class SetAsideStatistics(_BatchNorm, SetsAside):
    """A batch norm that can keep the statistics of its batches apart instead of moving its running ones."""

    @property
    def numbers_a_call(self) -> int:
        """A mean and a variance for each channel."""
        return 2 * self.num_features

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """Return `input` (batch, channels, ...) normalised."""
        if not self.training or self.set_aside is None or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        normalised = F.batch_norm(input, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        is_precise = input.dtype == self.running_var.dtype
        self.take_in(mean, variance, Rule.VARIANCE_IN_FLOAT64 if is_precise else Rule.AS_STORED)
        return normalised

    def take_in(self, mean: Tensor, variance: Tensor, rule: Rule) -> None:
        """Take in the statistics of a batch, (channels,), the variance as that of a sample: now, or when it is asked.

        They are kept in float64, which holds every float32.
        """
        if self.running_mean is None:
            return
        found = OfCall(rule, torch.cat([mean.double(), variance.double()]))
        if self.set_aside is None:
            self.move(found)
        else:
            self.set_aside.append(found)

    @torch.no_grad()
    def move(self, found: OfCall) -> None:
        """Move the running statistics towards those of one batch, by torch's formula."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        moved = (self.running_mean, self.running_var)
        for running, new in zip(moved, found.numbers.to(self.running_mean.device).view(2, -1), strict=True):
            if found.rule is Rule.IN_FLOAT64:
                running.copy_((1 - share) * running.double() + share * new)
                continue
            part = torch.tensor(share, dtype=running.dtype)  # on the CPU: one number, rounded as torch rounds it
            is_wide = running is self.running_var and found.rule is Rule.VARIANCE_IN_FLOAT64
            added = part.double() * new if is_wide else part * new.to(running.dtype)
            running.copy_(added + (1 - part) * running)


class Statistics:
    """What the norms of some networks set aside, in a fixed order: that of the modules, then that of the calls."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        self._norms = [module for network in networks for module in network.modules() if isinstance(module, SetsAside)]

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Let the norms leave their buffers as they are within the block."""
        for norm in self._norms:
            norm.set_aside = []
        try:
            yield
        finally:
            for norm in self._norms:
                norm.set_aside = None

    def taken(self) -> OfBatch:
        """Return, once, what was set aside since this was asked last."""
        rules, parts = [], []
        for norm in self._norms:
            calls = norm.set_aside or []
            rules.append(tuple(call.rule for call in calls))
            parts += [call.numbers for call in calls]
            calls.clear()
        return OfBatch(tuple(rules), torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64))

    def move(self, of_batch: OfBatch) -> None:
        """Move the buffers by what `taken` returned, here or in another process."""
        at = 0
        for norm, rules in zip(self._norms, of_batch.rules, strict=True):
            for rule in rules:
                norm.move(OfCall(rule, of_batch.numbers[at : at + norm.numbers_a_call]))
                at += norm.numbers_a_call
