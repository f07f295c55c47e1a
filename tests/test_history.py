"""Which epoch is the best: the lowest validation EER, and what decides between equals."""

from __future__ import annotations

import pytest

from tests.records import metrics
from training.history import best_epoch


@pytest.mark.parametrize(
    ("eers_and_losses", "best", "why"),
    [
        ([], None, "no epoch yet"),
        ([(5.0, 0.5)], 1, "the only one"),
        ([(5.0, 0.5), (3.0, 0.9), (4.0, 0.1)], 2, "the lowest EER, whatever its loss"),
        ([(0.0, 0.5), (0.0, 0.2), (0.0, 0.3)], 2, "equal EERs: the lower loss"),
        ([(0.0, 0.2), (0.0, 0.2), (0.0, 0.2)], 1, "all equal: the earlier"),
        ([(9.0, 0.1), (0.0, 0.2), (0.0, 0.2)], 2, "the earlier of the two best, not of all"),
        ([(100.0, 9.0), (100.0, 8.0)], 2, "an EER of 100 % is a figure like another"),
    ],
)
def test_the_best_epoch(eers_and_losses: list[tuple[float, float]], best: int | None, why: str) -> None:
    history = [metrics(epoch, val_eer=eer, val_loss=loss) for epoch, (eer, loss) in enumerate(eers_and_losses, 1)]
    found = best_epoch(history)
    assert (found.epoch if found else None) == best, why


def test_the_order_of_the_history_does_not_matter() -> None:
    history = [metrics(epoch, val_eer=eer) for epoch, eer in enumerate([4.0, 2.0, 2.0, 3.0], 1)]
    assert best_epoch(history[::-1]) == best_epoch(history) == history[1]
