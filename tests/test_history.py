"""Which epoch is the best: the lowest validation EER, and what decides between equals."""

from __future__ import annotations

import pytest
import torch

from tests.records import metrics
from training.checkpoints.history import History, UnfinishedEpoch, is_stalled
from training.checkpoints.rows import best_epoch, plateau_reductions
from training.settings.tasks import DETECTION

FIGURES = DETECTION.figures


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
    found = best_epoch(history, FIGURES)
    assert (found.epoch if found else None) == best, why


def test_the_order_of_the_history_does_not_matter() -> None:
    history = [metrics(epoch, val_eer=eer) for epoch, eer in enumerate([4.0, 2.0, 2.0, 3.0], 1)]
    assert best_epoch(history[::-1], FIGURES) == best_epoch(history, FIGURES) == history[1]


@pytest.mark.parametrize(
    ("epoch", "best", "patience", "expected", "why"),
    [
        (9, 1, 0, False, "0: never"),
        (0, None, 1, False, "nothing is trained yet"),
        (3, 3, 1, False, "the last epoch is the best"),
        (3, 2, 1, True, "one epoch without a new best one"),
        (3, 2, 2, False, "one of two"),
        (4, 2, 2, True, "two of two"),
        (9, 2, 2, True, "longer than asked for: the patience was lowered on resume"),
        (2, None, 2, True, "no epoch could be saved"),
    ],
)
def test_training_ends_when_patience_does(
    epoch: int, best: int | None, patience: int, expected: bool, why: str
) -> None:
    epochs = [metrics(best)] if best else []
    history = History(FIGURES, UnfinishedEpoch(10), (("run-a", 0),), epoch=epoch, epochs=epochs)
    assert is_stalled(history, patience) is expected, why


@pytest.mark.parametrize(
    ("eers_and_losses", "patience", "expected", "why"),
    [
        ([], 0, 0, "no epoch yet"),
        ([(5.0, 0.5)], 0, 0, "the first is a new best one"),
        ([(5.0, 0.5), (5.0, 0.5)], 0, 1, "an equal one is not better"),
        ([(5.0, 0.5), (5.0, 0.4), (4.0, 0.9)], 0, 0, "a lower loss at the same EER is better, and a lower EER"),
        ([(5.0, 0.5), (6.0, 0.1), (7.0, 0.1)], 2, 0, "two in a row are waited for"),
        ([(5.0, 0.5), (6.0, 0.1), (7.0, 0.1), (7.0, 0.1)], 2, 1, "and the third lowers it"),
        ([(5.0, 0.5), (6.0, 0.1), (4.0, 0.1), (5.0, 0.1)], 1, 0, "not in a row"),
        ([(5.0, 0.5)] + 6 * [(6.0, 0.5)], 2, 2, "the count starts anew after each reduction"),
        ([(5.0, 0.5), (6.0, 0.5), (5.5, 0.5)], 0, 2, "better than the last, but not than the best"),
    ],
)
def test_a_plateau_lowers_the_rate(
    eers_and_losses: list[tuple[float, float]], patience: int, expected: int, why: str
) -> None:
    history = [metrics(epoch, val_eer=eer, val_loss=loss) for epoch, (eer, loss) in enumerate(eers_and_losses, 1)]
    assert plateau_reductions(history, FIGURES, patience) == expected, why


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_a_plateau_is_counted_as_torch_counts_it(patience: int) -> None:
    """Sixty epochs that get better and worse, against ReduceLROnPlateau without threshold."""
    losses = torch.rand(60, generator=torch.Generator().manual_seed(3)).double() + torch.linspace(1, 0.5, 60).double()
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, threshold=0.0, threshold_mode="abs", eps=0.0
    )
    history = []
    for epoch, loss in enumerate(losses.tolist(), 1):
        theirs.step(loss)
        history.append(metrics(epoch, val_eer=loss, val_loss=0.0))
        assert optimizer.param_groups[0]["lr"] == 0.5 ** plateau_reductions(history, FIGURES, patience), epoch
    assert optimizer.param_groups[0]["lr"] < 0.1
