"""Training and validation batches whose order and randomness depend on nothing but their position.

`batches(epoch, first_batch)` starts anywhere in any epoch, replays nothing, and gives the same bits for any number of
worker processes. `steps` gives them as the loop takes them, and to each of several processes its share alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch

from training.data.loading import NO_LABEL, Batch, BatchDataset, BatchKey, BatchReader, View
from training.data.pairs import PairedOrder, in_batches
from training.data.shares import Share, StepBatches
from utils.audio.rawboost import RawBoost
from utils.audio.waveforms import CROP_SAMPLES, Waveform, fit_length
from utils.corpora import CorpusPart
from utils.interruption import StopRequest
from utils.seeding import Visit, balanced_order, epoch_order, generator_at
from utils.waiting import NEVER

__all__ = ["Batch", "Crop", "TrainingBatches", "TrainingView", "ValidationBatches", "validation_view"]

Crop = Literal["start", "random"]
NO_AUGMENTATION = RawBoost(algorithm=0)


@dataclass(frozen=True)
class TrainingView:
    """What training sees of an utterance: a crop at its start or at a random place (clovaai/aasist data_utils.py).

    The whole utterance is augmented before it is cropped (TakHemlata/RawBoost-antispoofing data_utils_rawboost.py), by
    draws of its own: most utterances of the field are shorter than the crop, so cropping first would save nothing.
    """

    seed: int
    crop: Crop = "start"
    augmentation: RawBoost = NO_AUGMENTATION

    def __call__(self, waveform: Waveform, epoch: int, utterance: str, visit: int = 0) -> Waveform:
        """Return `(64600,)`, the same for the same seed, epoch, utterance and visit.

        `visit` says how often the utterance came in this epoch before: its draws are new each time.
        """
        position: tuple[int | str, ...] = (self.seed, epoch, utterance) + ((visit,) if visit else ())
        if self.augmentation.algorithm:
            waveform = self.augmentation(waveform, generator_at("rawboost", *position))
        start = 0
        if self.crop == "random" and waveform.size > CROP_SAMPLES:
            generator = generator_at("crop", *position)
            start = int(generator.integers(waveform.size - CROP_SAMPLES + 1))
        return fit_length(waveform, start=start)


def validation_view(waveform: Waveform, epoch: int, utterance: str, visit: int = 0) -> Waveform:  # noqa: ARG001 - a View
    """Return the first `(64600,)` of an utterance: validation is never augmented."""
    return fit_length(waveform)


class TrainingBatches:
    """The batches of a training part: every utterance once an epoch, in an order drawn from (seed, epoch).

    Balanced batches have as many utterances of each class (an even `batch_size` given), in the order of
    `balanced_order`, which takes those of the smaller class again and again: an epoch is twice the larger class long.
    Paired ones have each spoof in one batch with its source, see `PairedOrder`. What is seen of an utterance is said by
    `view`, for a detector by `crop` and `augmentation`. The last batch of an epoch may be smaller, of paired ones any.
    Workers start at the first use and stay until `close`, or the end of the program. One iteration at a time: starting
    another one ends the one before. Raises UserError where there are no pairs, or none that fit.
    """

    def __init__(
        self,
        part: CorpusPart,
        *,
        batch_size: int,
        seed: int,
        balanced: bool = False,
        paired: bool = False,
        crop: Crop = "start",
        augmentation: RawBoost = NO_AUGMENTATION,
        view: View | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        view = view or TrainingView(seed, crop, augmentation)
        self._labels = _labels_of(part)
        self._are_bona_fide = [label == 1 for label in part.protocol.labels]
        self._balanced = balanced
        self._batch_size = batch_size
        self._seed = seed
        self._pairs = PairedOrder(part, batch_size, balanced=balanced) if paired else None
        self._reader = BatchReader(BatchDataset(part, view), num_workers, pin_memory)

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be told of how utterances are put together, a line each."""
        return (self._pairs.told,) if self._pairs else ()

    @property
    def num_batches_per_epoch(self) -> int:
        """How many batches an epoch has, the smaller last one included."""
        if self._pairs:
            return self._pairs.num_batches
        num_bona_fide, size = sum(self._are_bona_fide), len(self._are_bona_fide)
        utterances = 2 * max(num_bona_fide, size - num_bona_fide) if self._balanced else size
        return -(-utterances // self._batch_size)

    def batches(self, epoch: int, first_batch: int = 0, stop: StopRequest = NEVER) -> Iterator[Batch]:
        """Return an iterator over the batches of `epoch` (from 1), from batch `first_batch` (from 0) to the last one.

        `first_batch` may be `num_batches_per_epoch`: nothing is left. Raises ValueError for any other position outside
        the epoch; the iterator raises UserError where an utterance cannot be read, and StopAskedError where `stop`
        comes while it waits for a batch.
        """
        return self._reader.read(self._keys(epoch, first_batch), stop)

    def steps(self, epoch: int, first_batch: int, share: Share, stop: StopRequest = NEVER) -> Iterator[StepBatches]:
        """Return an iterator over the steps that the batches from `first_batch` on make, each with its share of them.

        It raises as that of `batches` does, and reads no audio of other shares.
        """
        return _steps(self._reader, self._keys(epoch, first_batch), self._labels, share, stop)

    def _keys(self, epoch: int, first_batch: int) -> list[BatchKey]:
        if epoch < 1 or not 0 <= first_batch <= self.num_batches_per_epoch:
            raise ValueError(
                f"a position is an epoch from 1 and a batch from 0 to {self.num_batches_per_epoch}, "
                f"found epoch {epoch}, batch {first_batch}"
            )
        return self._keys_of_epoch(epoch)[first_batch:]

    def _keys_of_epoch(self, epoch: int) -> list[BatchKey]:
        if self._pairs:
            return [_batch_key(epoch, batch) for batch in self._pairs.batches(self._seed, epoch)]
        if not self._balanced:
            return _batch_keys(epoch, epoch_order(self._seed, epoch, len(self._are_bona_fide)), self._batch_size)
        order = balanced_order(self._seed, epoch, self._are_bona_fide)
        return [_batch_key(epoch, batch) for batch in in_batches(order, self._batch_size)]

    def close(self) -> None:
        """Stop the workers; the next iteration starts new ones."""
        self._reader.close()


class ValidationBatches:
    """The batches of a part in the order of its protocol: nothing drawn, nothing dropped, the same in every epoch."""

    def __init__(
        self,
        part: CorpusPart,
        *,
        batch_size: int,
        view: View = validation_view,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._keys = _batch_keys(0, range(len(part)), batch_size)
        self._labels = _labels_of(part)
        self._reader = BatchReader(BatchDataset(part, view), num_workers, pin_memory)

    @property
    def num_batches(self) -> int:
        """How many batches there are, the smaller last one included."""
        return len(self._keys)

    def batches(self, first_batch: int = 0, stop: StopRequest = NEVER) -> Iterator[Batch]:
        """Return an iterator over the batches from `first_batch` on; it raises as that of `TrainingBatches` does."""
        return self._reader.read(self._keys[first_batch:], stop)

    def steps(self, share: Share, stop: StopRequest = NEVER, first_batch: int = 0) -> Iterator[StepBatches]:
        """Return an iterator over groups of batches from `first_batch` on, each with its share of them."""
        return _steps(self._reader, self._keys[first_batch:], self._labels, share, stop)

    def close(self) -> None:
        """Stop the workers; the next iteration starts new ones."""
        self._reader.close()


def _labels_of(part: CorpusPart) -> list[int]:
    return [NO_LABEL if trial.label is None else trial.label for trial in part.protocol.trials]


def _steps(
    reader: BatchReader, keys: Sequence[BatchKey], labels: Sequence[int], share: Share, stop: StopRequest
) -> Iterator[StepBatches]:
    groups = [keys[group.start : group.stop] for group in share.groups(len(keys))]
    own = [share.of_step(len(group)) for group in groups]
    read = [group[number] for group, numbers in zip(groups, own, strict=True) for number in numbers]
    coming = reader.read(read, stop)
    for group, numbers in zip(groups, own, strict=True):
        of_step = torch.tensor([labels[index] for key in group for index in key.indices])
        yield StepBatches(list(islice(coming, len(numbers))), numbers.start, len(group), of_step)


def _batch_keys(epoch: int, order: Sequence[int], batch_size: int) -> list[BatchKey]:
    return [BatchKey(epoch, tuple(batch)) for batch in in_batches(order, batch_size)]


def _batch_key(epoch: int, visits: Sequence[Visit]) -> BatchKey:
    return BatchKey(epoch, *zip(*visits, strict=True))
