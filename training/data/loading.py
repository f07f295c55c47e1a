"""Reads batches of utterances, in a thread of this process or in worker processes that belong to it alone.

Neither draws anything: what a batch holds follows from its key. The main thread never reads: it waits, and a stop ends
that wait whatever a disk or file server does.

A worker that gives nothing for long is replaced. It is forked while other threads run, and what they hold at that
moment, such as a lock of the C library, nobody gives back in it: one in about a thousand starts waited for such a lock.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data.workers import OPEN_FILES_OF_A_WORKER, Place, Worker, WorkerDiedError, end_workers
from utils.audio.waveforms import Waveform, read_waveform
from utils.console import say
from utils.corpora import CorpusPart
from utils.errors import UserError
from utils.interruption import StopRequest
from utils.open_files import most_open_files, room_for_open_files
from utils.text_column import TextColumn
from utils.waiting import NEVER, Helpers, each_awaited, say_aside, wait_for

View = Callable[[Waveform, int, str, int], Waveform]
"""What is seen of a waveform, given its epoch, its utterance, and how often that came in the epoch before."""

NO_LABEL = -1
_AHEAD = 2  # batches that are read or wait to be read, for each worker
_OTHER_OPEN_FILES = 16  # what saving, logs and pictures need at a time
_PATIENCE_S, _MOST_PATIENCE_S = 60.0, 3600.0
"""How long a worker is waited for before another takes its place; each time that was tried, twice as long."""


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
        """Return the batch in page-locked memory."""
        return Batch(*(tensor.pin_memory() for tensor in self._tensors()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as arrays, whose numbers can go beside the pickle."""
        return _batch_of, tuple(tensor.numpy() for tensor in self._tensors())

    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.waveforms, self.labels, self.indices


def _batch_of(*arrays: np.ndarray[Any, Any]) -> Batch:
    return Batch(*map(torch.from_numpy, arrays))


@dataclass(frozen=True)
class BatchKey:
    """Which utterances make one batch, in order, and the epoch (from 1; 0 for validation) whose draws they get.

    `visits` says of each how often it came in this epoch before; empty: never.
    """

    epoch: int
    indices: tuple[int, ...]
    visits: tuple[int, ...] = ()


class BatchDataset:
    """Reads whole batches by `BatchKey`; picklable, so that any way of starting workers will do.

    Of the part it keeps arrays: a worker that looked at its trials and paths would get copies of them, one by one.
    """

    def __init__(self, part: CorpusPart, view: View) -> None:
        self._paths = TextColumn(map(str, part.audio_paths))
        self._utterances = TextColumn(trial.utterance for trial in part.protocol.trials)
        self._labels = np.array(
            [NO_LABEL if trial.label is None else trial.label for trial in part.protocol.trials], dtype=np.int64
        )
        self._view = view
        self.name = part.name

    def __call__(self, key: BatchKey, place: Place) -> Batch:
        """Return the batch of `key`, `place` saying which utterance is being read; raises UserError for what cannot."""
        visits = key.visits or (0,) * len(key.indices)
        waveforms = []
        for index, visit in zip(key.indices, visits, strict=True):
            place.number = index
            waveforms.append(self._read(index, key.epoch, visit))
        place.number = None
        indices = np.array(key.indices, dtype=np.int64)
        return Batch(
            waveforms=torch.from_numpy(np.stack(waveforms)),
            labels=torch.from_numpy(self._labels[indices]),
            indices=torch.from_numpy(indices),
        )

    def _read(self, index: int, epoch: int, visit: int) -> Waveform:
        return self._view(read_waveform(Path(self._paths[index])), epoch, self._utterances[index], visit)

    def files(self, key: BatchKey, place: Place) -> str:
        """Return in words which file of a batch is being read."""
        if place.number is not None:
            return self._paths[place.number]
        return f"{len(key.indices)} files, the first of which is {self._paths[key.indices[0]]}"


def read_waveforms(paths: Sequence[Path], stop: StopRequest = NEVER) -> Iterator[Waveform]:
    """Yield the waveform of each file; raises UserError for one that cannot be read, and StopAskedError."""
    at = [Path()]

    def read() -> Iterator[Waveform]:
        for at[0] in paths:
            yield read_waveform(at[0])

    return each_awaited(read(), lambda: f"data: reading {at[0]}", stop)


@dataclass(eq=False)
class _Errand:
    """A batch on its way, and the number of the helper that has taken it on."""

    key: BatchKey
    helper: int | None = None
    result: Future[Batch] | None = None


def _answer_of(workers: Sequence[Worker], helper: int, key: BatchKey) -> Batch:
    """Return the answer of the worker in this place, whoever takes it meanwhile; raises WorkerDiedError."""
    while True:
        worker = workers[helper]
        try:
            batch: Batch = worker.ask(key)
            return batch
        except WorkerDiedError:
            if workers[helper] is worker:
                raise


class BatchReader:
    """Reads batches by their keys, some of them ahead where there are workers, which stay until `close`.

    One iteration at a time: a new one ends the one before.
    """

    def __init__(self, dataset: BatchDataset, num_workers: int, pin_memory: bool) -> None:
        self._dataset = dataset
        self._num_workers = num_workers
        self._pin_memory = pin_memory
        self._own_place = Place()
        self._workers: list[Worker] = []
        self._replaced: list[Worker] = []
        self._helpers: Helpers | None = None
        self._under_way: deque[_Errand] = deque()
        self._iteration: object = None
        self._patience_s = _PATIENCE_S

    def read(self, keys: Sequence[BatchKey], stop: StopRequest = NEVER) -> Iterator[Batch]:
        """Yield the batch of each key in turn.

        Raises UserError where an utterance cannot be read or a worker died, and StopAskedError where `stop` is
        requested while a batch is awaited.
        """
        self._give_up()
        iteration = self._iteration = object()
        helpers = self._helpers = self._helpers or self._start()
        coming = iter(keys)
        for _ in keys:
            if self._iteration is not iteration:
                raise RuntimeError("this iteration was ended by a newer one or by close()")
            self._send_for(coming, helpers, max(1, _AHEAD * len(self._workers)))
            errand = self._under_way.popleft()
            batch = self._take(errand, stop)
            self._send_for(coming, helpers, _AHEAD * len(self._workers))  # while this one is used
            yield batch

    def _send_for(self, coming: Iterator[BatchKey], helpers: Helpers, how_many: int) -> None:
        while len(self._under_way) < how_many and (key := next(coming, None)):
            errand = _Errand(key)
            errand.result = helpers.do(self._carry_out(errand))
            self._under_way.append(errand)

    def _carry_out(self, errand: _Errand) -> Callable[[int], Batch]:
        workers = self._workers

        def carry_out(helper: int) -> Batch:
            errand.helper = helper
            key, place = errand.key, self._own_place
            batch = _answer_of(workers, helper, key) if workers else self._dataset(key, place)
            return batch.pin_memory() if self._pin_memory else batch

        return carry_out

    def _take(self, errand: _Errand, stop: StopRequest) -> Batch:
        assert errand.result is not None
        began = time.monotonic()

        def replace_what_hangs() -> None:
            if self._workers and time.monotonic() - began > self._patience_s:
                self._replace(errand.helper)

        try:
            return wait_for(errand.result, lambda: f"data: reading {self._files(errand)}", stop, replace_what_hangs)
        except WorkerDiedError as error:
            files = self._files(errand)
            self.close()
            raise UserError(
                f"a process that reads audio died ({error}) at {files}: pass a lower --num_workers if memory is "
                "short, else look at that file"
            ) from error

    def _replace(self, helper: int | None) -> None:
        """Let another process do what a worker, or each of them, was asked; where the system refuses one, wait on."""
        replaced = []
        for number in range(len(self._workers)) if helper is None else (helper,):
            old = self._workers[number]
            with suppress(OSError):
                self._workers[number] = Worker(self._dataset, self._workers)
                old.kill()
                self._replaced.append(old)
                replaced.append(str(number + 1))
        if replaced:
            say_aside(
                f"[NOTE] Nothing came from worker {' and '.join(replaced)} for {self._patience_s:.0f} s: another "
                "process reads that again. The results are the same."
            )
        self._patience_s = min(2 * self._patience_s, _MOST_PATIENCE_S)

    def _files(self, errand: _Errand) -> str:
        """Return in words which file is being read, and by which worker; one that never began waits for the first."""
        helper = errand.helper or 0
        if not self._workers:
            return self._dataset.files(errand.key, self._own_place)
        return f"{self._dataset.files(errand.key, self._workers[helper].place)} (worker {helper + 1})"

    def _start(self) -> Helpers:
        """Start the workers, or as many as the system allows: with fewer, or with none, the batches are the same."""
        wanted, why = self._num_workers, ""
        if wanted:
            needed = wanted * OPEN_FILES_OF_A_WORKER + _OTHER_OPEN_FILES
            room = room_for_open_files(needed) - _OTHER_OPEN_FILES
            wanted = min(wanted, max(0, room // OPEN_FILES_OF_A_WORKER))
            most = most_open_files()
            why = f"only {most} files may be open at a time: `ulimit -n {most + 2 * needed}` gives room for all"
        self._workers = []
        for _ in range(wanted):
            try:
                self._workers.append(Worker(self._dataset, self._workers))
            except OSError as error:
                why = f"the system refuses another one: {error.strerror or error}"
                break
        found = len(self._workers)
        if found < self._num_workers:
            instead = f"{found} instead of {self._num_workers}" if found else f"none of the {self._num_workers}"
            say(
                f"[NOTE] {self._dataset.name} audio is read by {instead} processes of --num_workers ({why}). "
                "The results are the same."
            )
        helpers = Helpers(max(1, found), "reading")
        weakref.finalize(self, helpers.close).atexit = False  # threads outlive what they work for
        return helpers

    def _give_up(self) -> None:
        for errand in self._under_way:
            assert errand.result is not None
            errand.result.cancel()
        self._under_way.clear()

    def close(self) -> None:
        """End the workers and whatever is under way, within a second; the next iteration starts new ones."""
        self._iteration = None
        self._give_up()
        if self._helpers:
            self._helpers.close()
        end_workers([*self._workers, *self._replaced])
        self._workers, self._replaced, self._helpers = [], [], None
