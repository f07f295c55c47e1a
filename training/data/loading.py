"""Reads batches of utterances, in this process or in worker processes that belong to it alone.

Workers ignore the Ctrl-C, SIGTERM and SIGUSR1 that a terminal or a scheduler sends to the whole group, since the main
process decides when to stop and save, and die with it. They draw nothing: what a batch holds follows from its key.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from utils.audio.waveforms import Waveform, read_waveform
from utils.corpora import CorpusPart
from utils.errors import UserError
from utils.seeding import derive_seed
from utils.text_column import TextColumn

View = Callable[[Waveform, int, str, int], Waveform]
"""What is seen of a waveform, given its epoch, its utterance, and how often that came in the epoch before."""

NO_LABEL = -1
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Batch:
    """Waveforms `(batch, 64600)` float32, labels `(batch,)` int64 with 1 = bona fide, and indices `(batch,)` int64.

    A trial without a known key, which only evaluation meets, has the label NO_LABEL. An index is the position of the
    utterance in the part's protocol.
    """

    waveforms: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self.labels)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`; the copy from pinned memory does not wait."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self._tensors()))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; the DataLoader calls this where pinning was asked for."""
        return Batch(*(tensor.pin_memory() for tensor in self._tensors()))

    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.waveforms, self.labels, self.indices


@dataclass(frozen=True)
class BatchKey:
    """Which utterances make one batch, in order, and the epoch (from 1; 0 for validation) whose draws they get.

    `visits` says of each how often it came in this epoch before; empty: never.
    """

    epoch: int
    indices: tuple[int, ...]
    visits: tuple[int, ...] = ()


class BatchDataset(Dataset["Batch | UserError"]):
    """Reads whole batches by `BatchKey`; picklable, so that any way of starting workers will do.

    Of the part it keeps arrays: a worker that looked at its trials and paths would get copies of them, one by one.

    An utterance that cannot be read comes back as the UserError itself: raised in a worker, torch would turn it into
    another one whose message is a traceback.
    """

    def __init__(self, part: CorpusPart, view: View) -> None:
        self._paths = TextColumn(map(str, part.audio_paths))
        self._utterances = TextColumn(trial.utterance for trial in part.protocol.trials)
        self._labels = np.array(
            [NO_LABEL if trial.label is None else trial.label for trial in part.protocol.trials], dtype=np.int64
        )
        self._view = view

    def __getitem__(self, key: BatchKey) -> Batch | UserError:
        """Return the batch of `key`, or why it cannot be had."""
        visits = key.visits or (0,) * len(key.indices)
        try:
            waveforms = [self._read(index, key.epoch, visit) for index, visit in zip(key.indices, visits, strict=True)]
        except UserError as error:
            return error
        indices = np.array(key.indices, dtype=np.int64)
        return Batch(
            waveforms=torch.from_numpy(np.stack(waveforms)),
            labels=torch.from_numpy(self._labels[indices]),
            indices=torch.from_numpy(indices),
        )

    def _read(self, index: int, epoch: int, visit: int) -> Waveform:
        return self._view(read_waveform(Path(self._paths[index])), epoch, self._utterances[index], visit)


class _KeyList(Sampler[BatchKey]):
    """The keys that the next iteration reads; replaced between iterations, since workers outlive them."""

    def __init__(self) -> None:
        self.keys: Sequence[BatchKey] = ()

    def __iter__(self) -> Iterator[BatchKey]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class BatchReader:
    """A DataLoader over batch keys: owns the worker processes, from their first use to `close`.

    One iteration at a time: a new one ends the one before.
    """

    def __init__(self, dataset: BatchDataset, num_workers: int, pin_memory: bool) -> None:
        self._dataset = dataset
        self._num_workers = num_workers
        self._pin_memory = pin_memory
        self._keys = _KeyList()
        self._loader: DataLoader[Any] | None = None
        self._iterator: Iterator[Batch | UserError] | None = None
        self._iteration: object = None

    def read(self, keys: Sequence[BatchKey]) -> Iterator[Batch]:
        """Yield the batch of each key in turn; raises UserError where an utterance cannot be read."""
        iteration = self._iteration = object()
        self._keys.keys = keys
        if self._loader is None:
            self._loader = self._new_loader()
        with _signals_held():
            self._iterator = iter(self._loader)
        for _ in keys:
            if self._iteration is not iteration or self._iterator is None:
                raise RuntimeError("this iteration was ended by a newer one or by close()")
            found = next(self._iterator)
            if isinstance(found, UserError):
                raise found
            yield found

    def close(self) -> None:
        """Let go of the DataLoader, whose last reference stops its workers and waits for them."""
        self._iteration = None
        self._iterator = None
        self._loader = None

    def _new_loader(self) -> DataLoader[Any]:
        # Its generator gives the workers' base seed, which would else be drawn from torch's global one.
        return DataLoader(
            self._dataset,
            batch_size=None,
            sampler=self._keys,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            pin_memory=self._pin_memory,
            worker_init_fn=partial(_prepare_worker, os.getpid()),
            generator=torch.Generator().manual_seed(derive_seed("workers")),
        )


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back what is sent to the group while workers start: they inherit the mask and see no default action."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker(parent: int, worker: int) -> None:  # noqa: ARG001 - torch passes the worker's number
    """Ignore SIGINT and SIGUSR1, take SIGTERM from the parent only, compute in one thread, die with the parent (Linux).

    What the parent had stays its own: a garbage collection would write to each of its objects, and so copy them all.
    The parent's SIGTERM must work: multiprocessing sends it at exit and waits without end. A worker that outlived its
    SIGKILLed parent would hold what it inherited: the other end of a pipe, say. Where the sender of a signal cannot be
    known (macOS), SIGTERM keeps its effect.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_when_the_parent_says_so, daemon=True).start()
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    torch.set_num_threads(1)
    gc.freeze()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before this line, and no signal will ever come
            os._exit(0)


def _exit_when_the_parent_says_so() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
