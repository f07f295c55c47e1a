"""Makes the pending copies of one save in a thread beside training, and lets training wait for them where it must.

On the CPU numpy copies: it gives the interpreter free and uses one thread. torch's own copy would start threads of its
own in the writer's thread, and the number of torch's threads decides the last bits of training.

On CUDA the copies run on a stream of their own, after what the compute stream had been given when the save began. The
fence makes the compute stream wait for them, and the loop's thread only until they are queued. tests/test_gpu_copies.py
leaves out each of these waits, and a wrong file shows it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, UntypedStorage

from training.saving.kept_buffers import KeptBuffers, PendingCopy, detach
from training.saving.room import tensor_bytes
from utils.free_memory import free_memory_bytes

_SHARE_OF_FREE_MEMORY = 0.9


class BackgroundCopies:
    """The copies of one save: made by one thread, waited for by another. Create it where the state was last changed."""

    def __init__(self, pending: list[PendingCopy]) -> None:
        self._pending = pending
        self._ordered = threading.Event()
        devices = {copy.source.device for copy in pending if copy.source.device.type == "cuda"}
        self._changed = {device: torch.cuda.current_stream(device).record_event() for device in devices}
        self._copied: dict[torch.device, torch.cuda.Event] = {}

    def make(self, check: Callable[[], None]) -> None:
        """Copy, and return when all bytes are there; `check` is called between two copies and may raise."""
        try:
            streams = {device: torch.cuda.Stream(device) for device in self._changed}  # type: ignore[no-untyped-call]
            for device, stream in streams.items():
                stream.wait_event(self._changed[device])
            for copy in self._pending:
                check()
                _copy(copy, streams.get(copy.source.device))
            self._copied = {device: stream.record_event() for device, stream in streams.items()}
        finally:
            self._ordered.set()  # also where it failed: nobody waits for a copy that does not come
        for event in self._copied.values():
            event.synchronize()
        self._pending.clear()

    def fence(self) -> None:
        """Return when what the state's next change could spoil is copied, or will be before that change on a GPU."""
        self._ordered.wait()
        for device, event in self._copied.items():
            torch.cuda.current_stream(device).wait_event(event)


def lasting_copy(payload: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a copy of a payload that nothing changes, made at once; None where there is no memory for it."""
    free = free_memory_bytes()
    if free is not None and tensor_bytes(payload) > _SHARE_OF_FREE_MEMORY * free:
        return None
    try:
        copy, pending = detach(dict(payload), (), KeptBuffers())
        BackgroundCopies(pending).make(lambda: None)
    except MemoryError:
        return None
    return copy


def _copy(copy: PendingCopy, stream: torch.cuda.Stream | None) -> None:
    source, target = _as_bytes(copy.source), _as_bytes(copy.target)
    if stream is None:
        np.copyto(target.numpy(), source.numpy())
    else:
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)


def _as_bytes(storage: UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
