"""Checkpoint records and files for tests: small, real, and made the way the program makes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.rows import EpochMetrics, StepMetrics
from training.checkpoints.sealed_file import write_sealed
from training.settings.options import Options

STEPS_PER_EPOCH = 10


def metrics(epoch: int, val_eer: float = 5.0, val_loss: float = 0.5) -> EpochMetrics:
    figures = {"train_loss": 0.6, "train_eer": 20.0, "val_loss": val_loss, "val_acc": 90.0, "val_eer": val_eer}
    return EpochMetrics(epoch, epoch * STEPS_PER_EPOCH, figures, learning_rate=1e-6)


def validated(step: int, epoch: int, val_eer: float = 5.0, val_loss: float = 0.5, val_acc: float = 90.0) -> StepMetrics:
    return StepMetrics(epoch, step, {"val_loss": val_loss, "val_acc": val_acc, "val_eer": val_eer})


def record(
    path: Path | str,
    epoch: int,
    *,
    batches_done: int = 0,
    options: Options | None = None,
    run: str = "run-a",
    best_epoch: int | None = None,
    **changes: Any,
) -> CheckpointRecord:
    """Return the record of a checkpoint with `epoch` completed epochs and `batches_done` batches of the next."""
    last = metrics(epoch) if epoch else None
    made = CheckpointRecord(
        path=Path(path),
        bytes_on_disk=1,
        kind=Kind.STEP if batches_done else Kind.EPOCH,
        lineage=((run, 0),),
        epoch=epoch,
        step=epoch * STEPS_PER_EPOCH + batches_done,
        batches_done=batches_done,
        batches_per_epoch=STEPS_PER_EPOCH,
        learning_rate=1e-6,
        last=last,
        best=metrics(best_epoch) if best_epoch else last,
        options=options or Options(),
        data={"train": "a" * 64, "dev": "b" * 64},
        metadata={"num_threads": 1, "torch": "2", "device": "cpu"},
    )
    return replace(made, **changes)


def write_checkpoint(path: Path, made: CheckpointRecord) -> CheckpointRecord:
    """Write a real, sealed checkpoint file with a few weights, and return its record as a survey will read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = {"epoch": made.epoch, "model_state_dict": {"weight": torch.arange(64.0)}}
    with path.open("w+b") as file:
        write_sealed(file, lambda writer: torch.save(payload, writer), made.as_dict())
    return replace(made, path=path, bytes_on_disk=path.stat().st_size)


def write_foreign_weights(path: Path) -> None:
    """Write weights as another program does: torch's archive, no record, no seal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model_state_dict": {"weight": torch.arange(64.0)}}, path)


def flip_a_bit(path: Path) -> None:
    """Damage a weight: one bit in the middle of the first tensor, which torch.load reads without complaint."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(64.0).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Take the second half of a file away."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
