"""The gradient of a step: that of its batches added in a fixed tree, on one process or shared out to several.

    gradients = Gradients(parameters, batches=range(4, 8), num_batches=8, exchange=exchange)
    for number in gradients.batches:
        with gradients.of_batch(number):
            loss(batches[number]).backward()
    gradients.complete()                          # every `parameter.grad` is that of all eight batches

Memory beside the gradient itself: one more for each sum that waits in the tree, ceil(log2(n)) - 1 of n batches on one
process, one of three or four, two of five to eight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from training.loop.batch_tree import Node, joined
from training.loop.exchange import Exchange, Exchanged


class Gradients:
    """Gathers the gradients of a step's `batches`, some or all of `num_batches`, by their numbers in it.

    `.grad` of the parameters must be None before. Where processes share a step out, `complete` gives each the gradient
    of the whole step, with the bits that one process would give it. A parameter that no batch reaches has None.
    """

    def __init__(
        self, parameters: Sequence[Tensor], batches: range, num_batches: int, exchange: Exchange | None = None
    ) -> None:
        self.batches = batches
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._num_batches = num_batches
        self._newest: Node | None = None  # what `.grad` holds
        self._waiting: list[tuple[Node, list[Tensor | None]]] = []
        self._exchanged = exchange.begin(self._parameters, num_batches) if exchange else None

    @contextmanager
    def of_batch(self, number: int) -> Iterator[None]:
        """Take in the gradient that the block computes; within the last batch the exchange begins already."""
        node = (0, number)
        if number % 2 and self._newest == (0, number - 1):  # autograd adds the second of a pair to the first
            node = (1, number // 2)
        elif self._newest is not None:
            self._waiting.append((self._newest, [parameter.grad for parameter in self._parameters]))
            for parameter in self._parameters:
                parameter.grad = None
        self._newest, taken = joined([held for held, _ in self._waiting], node, self._num_batches)
        rest, left = self._waiting[: len(self._waiting) - taken], self._waiting[len(self._waiting) - taken :]
        self._waiting = rest
        if self._exchanged is None or number != self.batches[-1]:
            yield
            self._take_in(range(len(self._parameters)), left)
            return
        with _sent_when_ready(self._parameters, self._exchanged, lambda index: self._take_in([index], left), rest):
            yield

    def complete(self) -> None:
        """Make every `.grad` that of the whole step; the processes of one run call it together."""
        if self._exchanged:
            self._exchanged.complete()

    def _take_in(self, indices: Sequence[int], left: Sequence[tuple[Node, list[Tensor | None]]]) -> None:
        """Add sums to the left of the newest one to it, the nearest first, and let go of them."""
        for _, sums in reversed(left):
            both, added = [], []
            for index in indices:
                parameter, held = self._parameters[index], sums[index]
                sums[index] = None
                if held is not None and parameter.grad is not None:
                    both.append(parameter.grad)
                    added.append(held)
                elif held is not None:
                    parameter.grad = held
            if both:
                torch._foreach_add_(both, added)


@contextmanager
def _sent_when_ready(
    parameters: Sequence[Tensor],
    exchanged: Exchanged,
    take_in: Callable[[int], None],
    waiting: Sequence[tuple[Node, list[Tensor | None]]],
) -> Iterator[None]:
    """Hand over each parameter's sums as soon as backward is through with it, and those it does not reach at the end.

    Hooks run in the order of backward, which may differ from process to process; `exchanged` sends in a fixed one.
    """
    sent: set[int] = set()

    def send(index: int) -> None:
        sent.add(index)
        take_in(index)
        exchanged.put(index, [*(sums[index] for _, sums in waiting), parameters[index].grad])
        parameters[index].grad = None
        for _, sums in waiting:
            sums[index] = None

    with ExitStack() as hooks:
        for index, parameter in enumerate(parameters):
            hook = parameter.register_post_accumulate_grad_hook(lambda _, index=index: send(index))  # type: ignore[no-untyped-call]
            hooks.callback(hook.remove)
        yield
    with torch.no_grad():
        for index in range(len(parameters)):
            if index not in sent:
                send(index)
