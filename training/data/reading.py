"""Batches as several processes take them: what goes wrong in reading them is told apart, and happens to all."""

from __future__ import annotations

from collections.abc import Iterator

from training.data.shares import StepBatches
from utils.errors import UserError
from utils.ranks import Ranks
from utils.waiting import StopAskedError


class DataError(UserError):
    """An utterance that cannot be read; the state is whole, since it shows between two steps."""


def read(steps: Iterator[StepBatches], ranks: Ranks) -> Iterator[StepBatches]:
    """Yield the steps, or raise in every process what goes wrong in reading the share of one.

    Raises DataError for an utterance that cannot be read, and StopAskedError where a stop comes in any process while
    it waits for a batch; of several reasons all raise that of the first process.
    """
    while True:
        step: StepBatches | None = None
        failure: StopAskedError | UserError | None = None
        try:
            step = next(steps, None)
        except (StopAskedError, UserError) as error:
            failure = error
        for found in ranks.gather(failure):
            if found is not None:
                raise found if isinstance(found, StopAskedError) else DataError(str(found)) from failure
        if step is None:
            return
        yield step
