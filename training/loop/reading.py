"""Batches as the loop takes them: several make a step, and what goes wrong in reading them is told apart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from training.data.loading import Batch
from utils.errors import UserError


class DataError(UserError):
    """An utterance that cannot be read; the state is whole, since it shows between two steps."""


def read(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches, telling what goes wrong in reading them from what goes wrong in using them."""
    try:
        yield from batches
    except UserError as error:
        raise DataError(str(error)) from error


def grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield what makes one step each: `size` batches, or what is left of them at the end of the epoch."""
    while group := list(islice(batches, size)):
        yield group
