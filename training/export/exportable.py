"""What --export writes: a network with one input and several outputs, each with a name, and how its input is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

Score = Callable[[Tensor], tuple[Tensor, ...]]
"""From an input (batch, ...) to the outputs, in the order of their names."""


@dataclass(frozen=True)
class Taken:
    """The input of a network: its name, and random ones by batch size and length, the same in every run.

    `length`, in `unit`, is that of training, along `axis`. `other_lengths`, a half and an odd one, are those at which a
    file must be right, too, before it is said to take any, from `least` on: a traced or converted network may have a
    count of frames or nodes baked in that is right for lengths nearby.
    """

    name: str
    make: Callable[[int, int], Tensor]
    length: int
    other_lengths: tuple[int, ...]
    axis: int
    least: int
    unit: str


class Exportable(nn.Module, ABC):
    """A network as a file of another format has it: called with its input, it returns a tuple of its outputs."""

    taken: ClassVar[Taken]
    outputs: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The network whose weights a file of weights alone holds, under its own names."""

    @abstractmethod
    def empty(self) -> Self:
        """Return one of the same shape with random weights."""
