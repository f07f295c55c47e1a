"""What the first of several processes has read, handed out to the others: values as a message, tensors as such."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from utils.ranks import Ranks

Value = TypeVar("Value")
_Form = tuple[torch.dtype, torch.Size]


def handed_out(ranks: Ranks, make: Callable[[], Value]) -> Value:
    """Return to all what `make` returned to the first, tensors on the CPU in it; a UserError is raised by all."""
    if ranks.count == 1:
        return make()
    made: list[tuple[Value, list[Tensor]]] = []

    def packed() -> tuple[bytes, list[_Form]]:
        value = make()
        content, tensors = _taken_apart(value)
        made.append((value, tensors))
        return content, [(tensor.dtype, tensor.shape) for tensor in tensors]

    content, forms = ranks.broadcast(packed)
    if made:
        value, tensors = made[0]
    else:
        tensors = [torch.empty(shape, dtype=dtype) for dtype, shape in forms]
    make_equal(ranks, tensors)
    return value if made else _put_together(content, tensors)


def make_equal(ranks: Ranks, tensors: Iterable[Tensor]) -> None:
    """Give these tensors, on the CPU and alike in all processes, the values that they have in the first."""
    if ranks.count == 1:
        return
    import torch.distributed as dist  # noqa: PLC0415  (there is no group without it)

    for tensor in tensors:
        if not tensor.numel():
            continue
        plain = tensor.detach().contiguous()
        dist.broadcast(plain.view(-1).view(torch.uint8), src=0, group=ranks.group)
        if not ranks.is_first and plain.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(plain)


def _taken_apart(value: object) -> tuple[bytes, list[Tensor]]:
    """Return a pickle that names the tensors of a value by their place in the list."""
    tensors: list[Tensor] = []
    places: dict[int, int] = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, part: object) -> int | None:
            if not isinstance(part, Tensor):
                return None
            if id(part) not in places:
                places[id(part)] = len(tensors)
                tensors.append(part)
            return places[id(part)]

    content = io.BytesIO()
    Pickler(content, pickle.HIGHEST_PROTOCOL).dump(value)
    return content.getvalue(), tensors


def _put_together(content: bytes, tensors: Sequence[Tensor]) -> Any:
    class Unpickler(pickle.Unpickler):
        def persistent_load(self, place: int) -> Tensor:
            return tensors[place]

    return Unpickler(io.BytesIO(content)).load()
