"""Loads a file by its name, opened and verified just before, as the program does where no plan has opened it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.checkpoints import verified_load, weights
from training.checkpoints.verified_file import open_verified
from training.checkpoints.weights import Weights
from training.saving import store


def load_payload(path: Path) -> dict[str, Any]:
    """Return what a full checkpoint holds."""
    return store.load_payload(open_verified(path))


def load_weights(path: Path) -> Weights:
    """Return the weights in a file."""
    return weights.load_weights(open_verified(path))


def load_verified(path: Path) -> dict[str, Any]:
    """Return whatever a file of tensors holds."""
    return verified_load.load_verified(open_verified(path))
