"""A disk that is full, for a while or for good: training goes on, the last good checkpoint stays, the user is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from main import main
from tests.conftest import SMALL_RUN, DuringStep
from tests.small_disk import fill
from training.checkpoints.sealed_file import broken_seal, read_record
from utils.atomic_files import TEMPORARY_PREFIX

ROOM = 2**20  # less than a checkpoint needs


def train(corpus: Path, epochs: int) -> int:
    return main(
        [*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", str(epochs), "--auto_resume", "--sync_save"]
    )


def checkpoints(disk: Path) -> list[str]:
    assert not list(disk.rglob(f"{TEMPORARY_PREFIX}*"))
    found = sorted(disk.glob("models/*/*.pth"))
    assert [broken_seal(path) for path in found] == [None] * len(found)
    return [path.name for path in found if path.name.startswith("checkpoint")]


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    small_disk: Path, corpus: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    filler = small_disk / "somebody_elses_file"
    during_step(
        {5: lambda: fill(small_disk, ROOM), 8: filler.unlink}
    )  # three steps an epoch: full at the end of the second
    assert train(corpus, epochs=3) == 0
    assert checkpoints(small_disk) == [f"checkpoint_epoch_{epoch}.pth" for epoch in (1, 2, 3)]
    said = capsys.readouterr().out
    assert re.search(
        r"checkpoint_epoch_2.pth could not be saved: it needs \d\.\d MB and 1\.\d MB are free in models/", said
    )
    assert "Training goes on, and the next save tries again" in said
    (log,) = small_disk.glob("models/*/training_log.csv")
    assert [line.split(",")[0] for line in log.read_text().splitlines()] == ["epoch", "1", "2", "3"]


def test_the_best_files_are_those_of_the_best_epoch_that_is_on_disk(
    small_disk: Path, corpus: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    """Epoch 2 or 3 is lost; whichever of all four was the best, the best file is one of those that exist."""
    during_step({5: lambda: fill(small_disk, ROOM), 10: (small_disk / "somebody_elses_file").unlink})
    assert train(corpus, epochs=4) == 0
    kept = {path.name: record_of(path) for path in small_disk.glob("models/*/checkpoint_epoch_*.pth")}
    assert len(kept) == 3 and {"checkpoint_epoch_1.pth", "checkpoint_epoch_4.pth"} < set(kept)
    best = min(kept.values(), key=lambda row: (row["val_eer"], row["val_loss"]))
    (file,) = small_disk.glob("models/*/best_checkpoint_eer.pth")
    (weights,) = small_disk.glob("models/*/best_model_eer.pth")
    assert record_of(file) == record_of(weights) == best
    assert f"Best: epoch {best['epoch']} with" in capsys.readouterr().out


def record_of(path: Path) -> dict[str, Any]:
    stored = read_record(path)
    assert stored is not None
    last: dict[str, Any] = stored["last"]
    return last


def test_a_state_that_could_not_be_saved_at_the_end_makes_the_exit_code_1_and_can_be_trained_again(
    small_disk: Path, corpus: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    during_step({5: lambda: fill(small_disk, ROOM)})
    assert train(corpus, epochs=2) == 1
    message = capsys.readouterr().err
    assert "checkpoint_epoch_2.pth could not be saved" in message
    assert "checkpoint_epoch_1.pth" in message and "--auto_resume" in message
    (small_disk / "somebody_elses_file").unlink()
    assert train(corpus, epochs=2) == 0
    assert checkpoints(small_disk) == ["checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"]
