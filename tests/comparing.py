"""Compares two runs bit for bit: what they saved, not what they printed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

from tests.loading import load_payload
from training.settings.options import SETTINGS
from training.settings.setting import OnChange

# Where, when and how long: the only things in a checkpoint that may differ between two equal trainings.
CIRCUMSTANCES = (
    "times",
    "validation_times",
    "pace",
    "training_seconds",
    "seconds_in_epoch",
    "sessions",
    "metadata",
    "lineage",
)
WANDB = ("wandb_run_id", "wandb_run_name", "wandb_project")


def bits(path: Path) -> dict[str, Any]:
    """Return everything in a checkpoint that must not depend on interruptions."""
    payload = load_payload(path)
    for name in ("args", "config"):
        payload[name] = {key: value for key, value in payload[name].items() if _has_effect(key)}
    return {key: value for key, value in payload.items() if key not in (*CIRCUMSTANCES, *WANDB)}


def _has_effect(setting: str) -> bool:
    return SETTINGS[setting].on_change is not OnChange.FREE


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return the places where two nested values are not the same bits."""
    if type(one) is not type(other):
        return [f"{where}: {type(one).__name__} and {type(other).__name__}"]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and _same_bytes(one, other)
        return [] if same else [f"{where}: other tensor"]
    if isinstance(one, dict):
        found = [] if list(one) == list(other) else [f"{where}: keys {list(one)} and {list(other)}"]
        return found + [d for key in one if key in other for d in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{where}: length {len(one)} and {len(other)}"]
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{where}[{i}]")]
    return [] if one == other else [f"{where}: {one!r} and {other!r}"]


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


def assert_same_training(one: Path, other: Path) -> None:
    """Compare every epoch checkpoint and the best one of two run folders."""
    names = sorted(p.name for p in one.glob("*checkpoint_e*.pth"))
    assert names == sorted(p.name for p in other.glob("*checkpoint_e*.pth"))
    assert len(names) >= 2, "nothing to compare"
    for name in names:
        assert differences(bits(one / name), bits(other / name), name) == []
    best = [p.name for p in one.glob("best_model_eer*.pth")]
    assert len(best) == 1
    weights = [torch.load(folder / best[0], weights_only=True)["model_state_dict"] for folder in (one, other)]
    assert differences(weights[0], weights[1], best[0]) == []


def log_rows(folder: Path) -> list[str]:
    """Return the rows of training_log.csv without the columns that say when and how long."""
    with (folder / "training_log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [name for name in rows[0] if name not in ("timestamp", "seconds", "step_ms", "blocked_seconds")]
    return [",".join(kept), *(",".join(row[name] for name in kept) for row in rows)]
