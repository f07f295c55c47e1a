"""What is said of the learning rate before a resumed run uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.records import STEPS_PER_EPOCH, record
from training.checkpoints.record import CheckpointRecord
from training.planning.learning_rate import patience_notes, rate_ahead, rate_notes, rate_text
from training.settings.options import Options

COSINE = Options(lr=3e-4, scheduler="cosine", num_epochs=10)
PLATEAU = Options(lr=3e-4, scheduler="plateau")


def at(epoch: int, options: Options, rate: float, **changes: Any) -> CheckpointRecord:
    return record(Path("c.pth"), epoch, options=options, learning_rate=rate, **changes)


@pytest.mark.parametrize(
    ("stood", "asked", "expected", "why"),
    [
        (at(5, COSINE, 1.5e-4), COSINE, "0.00015", "half of the cosine, as it was"),
        (at(10, COSINE, 0.0), COSINE.replaced(num_epochs=20), "0.00015 (it was 0)", "at its end, then twice as long"),
        (at(5, COSINE, 1.5e-4), COSINE.replaced(lr=1e-4), "5e-05 (it was 0.00015)", "another --lr"),
        (
            at(5, COSINE, 1.5e-4),
            COSINE.replaced(scheduler="constant"),
            "0.0003 (it was 0.00015)",
            "another --scheduler",
        ),
        (
            at(5, COSINE, 1.5e-4),
            COSINE.replaced(batch_size=8),
            "about 0.000225 (it was 0.00015)",
            "longer epochs ahead",
        ),
        (at(5, PLATEAU, 1.5e-4), PLATEAU, "0.00015", "lowered once, and so it stays"),
        (
            at(5, PLATEAU, 1.5e-4),
            PLATEAU.replaced(lr=1e-4),
            "counted anew from the epochs so far, for --scheduler plateau (it was 0.00015)",
            "a record does not hold all epochs",
        ),
        (
            at(5, PLATEAU, 1.5e-4, numerics=1),
            PLATEAU,
            "counted anew from the epochs so far, for --scheduler plateau (it was 0.00015)",
            "by a version that counted otherwise",
        ),
    ],
)
def test_the_summary_shows_the_rate_that_will_be_used(
    stood: CheckpointRecord, asked: Options, expected: str, why: str
) -> None:
    assert rate_text(stood, asked) == expected, why


def test_a_jump_of_the_rate_is_told_before_it_happens() -> None:
    (note,) = rate_notes(at(10, COSINE, 0.0), COSINE.replaced(num_epochs=20, lr_min=1e-5))
    assert note == (
        "the learning rate goes from 0 to 0.000155 with the next step, and falls to 1e-05 from there: --scheduler "
        "cosine now ends with epoch 20, not 10"
    )
    assert rate_notes(at(5, COSINE, 1.5e-4), COSINE) == []


def test_a_checkpoint_in_mid_epoch_tells_the_rate_of_its_next_step() -> None:
    stood = at(4, COSINE, 0.0, batches_done=STEPS_PER_EPOCH // 2)
    total = 10 * STEPS_PER_EPOCH
    assert rate_ahead(stood, COSINE.replaced(scheduler="linear")) == pytest.approx(3e-4 * (1 - stood.step / total))


@pytest.mark.parametrize(("patience", "said"), [(0, 0), (4, 1), (5, 0)])
def test_a_patience_after_which_no_step_has_a_lower_rate_is_told(patience: int, said: int) -> None:
    assert len(patience_notes(PLATEAU.replaced(patience=patience, plateau_patience=3))) == said
