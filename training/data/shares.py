"""How processes share out the batches of a step, and the part of one step that one process has read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.loading import Batch
from utils.ranks import Ranks


@dataclass(frozen=True)
class Share:
    """Process `index` of `count` that share steps of `batches_a_step` batches out, which `count` divides.

    Neighbouring batches stay together, so that a process adds up most of what it computes by itself. The last step of
    an epoch may have fewer: then the last processes have fewer of it, or none.

    >>> [Share(index, 2, 6).of_step(6) for index in range(2)], [Share(index, 2, 6).of_step(4) for index in range(2)]
    ([range(0, 3), range(3, 6)], [range(0, 3), range(3, 4)])
    """

    index: int = 0
    count: int = 1
    batches_a_step: int = 1

    def __post_init__(self) -> None:
        if self.batches_a_step % self.count or not 0 <= self.index < self.count:
            raise ValueError(f"{self.batches_a_step} batches a step, and process {self.index} of {self.count}")

    def of_step(self, num_batches: int) -> range:
        """Return which batches of a step, from 0, this process takes."""
        return self.of_process(self.index, num_batches)

    def of_process(self, index: int, num_batches: int) -> range:
        """Return which batches of a step process `index` takes."""
        each = self.batches_a_step // self.count
        return range(min(index * each, num_batches), min((index + 1) * each, num_batches))

    def groups(self, num_batches: int) -> list[range]:
        """Return the steps that this many batches make, as ranges."""
        size = self.batches_a_step
        return [range(first, min(first + size, num_batches)) for first in range(0, num_batches, size)]


def one_batch_each(ranks: Ranks) -> Share:
    """Return the share of rounds in which every process takes one batch."""
    return Share(ranks.index, ranks.count, ranks.count)


@dataclass(frozen=True, eq=False)
class StepBatches:
    """The `batches` of a step that this process has, of which the first is number `first` of `num_batches`.

    `labels` (utterances,) int64 are those of the whole step, on the CPU, in its order.
    """

    batches: Sequence[Batch]
    first: int
    num_batches: int
    labels: Tensor

    @classmethod
    def whole(cls, batches: Sequence[Batch]) -> StepBatches:
        """Return a step that one process has."""
        return cls(batches, 0, len(batches), torch.cat([batch.labels for batch in batches]))

    @property
    def own(self) -> range:
        """The numbers of the batches that this process has."""
        return range(self.first, self.first + len(self.batches))

    def numbered(self) -> Iterator[tuple[int, Batch]]:
        """Yield the batches that this process has with their numbers in the step."""
        return zip(self.own, self.batches, strict=True)
