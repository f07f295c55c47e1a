"""Copies of a state in memory that is kept between saves: a payload whose tensors training no longer touches.

A payload's containers and its small parts are copied at once. The storages of the tensors that only an optimizer step
changes (the deferred ones: parameters, Adam's moments) get room in one block of memory, and are copied into it later,
by whom and when is up to the caller. Whole storages are copied, as torch.save writes whole storages: tied weights,
views and strides stay what they were, and a file saved from the copy has the bytes of one saved from the state itself.

Why one block that is kept, measured with 3.8 GB on 2 cores: a copy into memory that was never touched takes 1.4 to
11 s, into the same memory again 0.2 to 0.5 s. Pages that a forked data loader worker shares must be duplicated at the
first write after the fork: that copy took 5.8 to 10 s, and 0.2 s in a block that is not passed on to children
(MADV_DONTFORK), which also keeps a worker from holding 3.8 GB of old state. Huge pages made no steady difference.
"""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, UntypedStorage

from utils.free_memory import free_memory_bytes

Bytes = npt.NDArray[np.uint8]

_ALIGNMENT_BYTES = 64
_TOUCHED_AT_ONCE_BYTES = 1 << 24
_SHARE_OF_FREE_MEMORY = 0.9
_DEFERRABLE_DEVICES = ("cpu", "cuda")


class NoRoomError(Exception):
    """There is no memory for a copy of the state; the message says how much is needed and what was found."""


class KeptBuffers:
    """One block of memory, handed out from its start for each save; its owner saves one state at a time.

    The same storages in the same order get the same places again. With `pinned` it is page-locked, as copies from a GPU
    that nothing waits for need.
    """

    def __init__(self, pinned: bool = False) -> None:
        self._pinned = pinned
        self._block: Bytes = np.empty(0, dtype=np.uint8)
        self._used = 0

    def reserve(self, num_bytes: int) -> None:
        """Make all of the block free, and replace it where it is too small; raises NoRoomError.

        Memory that was never touched is only promised: a block that fits is asked for here, filled by `touch`.
        """
        self._used = 0
        if num_bytes > self._block.nbytes:
            self._block = np.empty(0, dtype=np.uint8)  # the old one goes first
            self._block = _allocate(num_bytes, self._pinned)

    def touch(self, is_over: Callable[[], bool]) -> None:
        """Write to every page, so that the first save need not wait for the kernel to find them; stop at `is_over`."""
        for start in range(0, self._block.nbytes, _TOUCHED_AT_ONCE_BYTES):
            if is_over():
                return
            self._block[start : start + _TOUCHED_AT_ONCE_BYTES].fill(0)

    def storage(self, num_bytes: int) -> UntypedStorage:
        """Return the next free part of the block as a storage of its own, which torch.save writes alone."""
        part = torch.frombuffer(self._block, dtype=torch.uint8, count=num_bytes, offset=self._used)
        self._used += _aligned(num_bytes)
        return part.untyped_storage()


def _allocate(num_bytes: int, pinned: bool) -> Bytes:
    free = free_memory_bytes()
    if free is not None and num_bytes > _SHARE_OF_FREE_MEMORY * free:
        raise NoRoomError(f"it needs {num_bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB are free")
    if pinned:
        pages: Bytes = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True).numpy()
        return pages
    try:
        memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise NoRoomError(f"it needs {num_bytes / 1e9:.1f} GB: {error.strerror}") from error
    if hasattr(mmap, "MADV_DONTFORK"):  # Linux
        memory.madvise(mmap.MADV_DONTFORK)
    return np.frombuffer(memory, dtype=np.uint8)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _is_deferrable(storage: UntypedStorage) -> bool:
    return storage.nbytes() > 0 and storage.device.type in _DEFERRABLE_DEVICES


def bytes_to_keep(deferred: Iterable[Tensor]) -> int:
    """Return the size of a block that holds a copy of every deferred tensor, each storage once."""
    storages = {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in deferred)}
    return sum(_aligned(storage.nbytes()) for storage in storages.values() if _is_deferrable(storage))


@dataclass(frozen=True, eq=False)
class PendingCopy:
    """Bytes that have still to be copied from `source`, which is live, to `target`, of the same size, on the CPU."""

    source: UntypedStorage
    target: UntypedStorage


def detach(
    payload: dict[str, Any], deferred: Iterable[Tensor], buffers: KeptBuffers
) -> tuple[dict[str, Any], list[PendingCopy]]:
    """Return a payload that shares nothing with `payload`, and what must be copied before it is whole.

    Nothing may change the storages of the `deferred` tensors before the pending copies are made. `buffers` must have
    been told to reserve `bytes_to_keep(deferred)`. Raises TypeError for a tensor that is not a plain view of a storage.
    """
    copier = _Copier({tensor.untyped_storage()._cdata for tensor in deferred}, buffers)
    with torch.no_grad():
        return copier.copy(payload), copier.pending


class _Copier:
    """Copies one payload. What was one object, or one storage, is one again in the copy: pickle writes it once."""

    def __init__(self, deferred: set[int], buffers: KeptBuffers) -> None:
        self.pending: list[PendingCopy] = []
        self._deferred = deferred
        self._buffers = buffers
        self._made: dict[int, Any] = {}
        self._storages: dict[int, UntypedStorage] = {}

    def copy(self, value: Any) -> Any:
        if id(value) in self._made:
            return self._made[id(value)]
        made: Any
        if type(value) in (Tensor, torch.nn.Parameter):
            made = self._tensor(value)
        elif type(value) in (dict, OrderedDict):
            made = type(value)((key, self.copy(part)) for key, part in value.items())
            if type(value) is OrderedDict:  # a module's state dict has `_metadata`, and torch.save writes it
                vars(made).update(self.copy(vars(value)))
        elif type(value) in (list, tuple):
            made = type(value)(self.copy(part) for part in value)
        else:  # cannot change, or the store refuses it
            return value
        self._made[id(value)] = made
        return made

    def _tensor(self, tensor: Tensor) -> Tensor:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
            raise TypeError(f"a checkpoint holds dense tensors without pending operations, found {tensor.layout}")
        storage = self._storage(tensor.untyped_storage())
        made = torch.empty(0, dtype=tensor.dtype, device=storage.device)
        made.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())
        if type(tensor) is torch.nn.Parameter:
            return torch.nn.Parameter(made, tensor.requires_grad)
        return made.requires_grad_(tensor.requires_grad)

    def _storage(self, live: UntypedStorage) -> UntypedStorage:
        """Return the copy of a storage, made or only pending; `_cdata` is what torch.save tells storages apart by."""
        if live._cdata not in self._storages:
            self._storages[live._cdata] = self._new_storage(live)
        return self._storages[live._cdata]

    def _new_storage(self, live: UntypedStorage) -> UntypedStorage:
        if live._cdata in self._deferred and _is_deferrable(live):
            target = self._buffers.storage(live.nbytes())
            self.pending.append(PendingCopy(live, target))
        elif live.device.type == "cuda":  # to the CPU would wait for the GPU here
            target = torch.empty(live.nbytes(), dtype=torch.uint8).untyped_storage()
            self.pending.append(PendingCopy(_clone(live), target))
        else:
            target = _clone(live)
        return target


def _clone(storage: UntypedStorage) -> UntypedStorage:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage).clone().untyped_storage()
