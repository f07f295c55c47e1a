"""Is there room for a checkpoint? Asked before the first byte, so that a save that cannot succeed takes no time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from utils.file_systems import free_bytes
from utils.terminal_text import bytes_text


def lack_of_room(folder: Path, payload: Mapping[str, Any]) -> str | None:
    """Return the sentence that says how much a payload needs and what is free in `folder`; None where it may fit.

    The need is estimated from below: a save that fits is never refused, and one that just does not runs into the full
    disk as it writes.
    """
    free, needed = free_bytes(folder), tensor_bytes(payload)
    if free is None or needed <= free:
        return None
    sizes = [bytes_text(needed), bytes_text(free)]
    if sizes[0] == sizes[1]:
        sizes = [f"{count:,} bytes" for count in (needed, free)]
    return f"it needs {sizes[0]} and {sizes[1]} are free in {folder}"


def tensor_bytes(payload: Any) -> int:
    """Return the bytes of the tensors in nested values: torch.save writes each storage once, and whole.

    >>> weight = torch.zeros(1000, 2)
    >>> tensor_bytes({"weight": weight, "tied": [weight, weight[0]]})
    8000
    """
    storages = {(s.device, s.data_ptr()): s.nbytes() for s in (t.untyped_storage() for t in _tensors_in(payload))}
    return sum(storages.values())


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors_in(part)
