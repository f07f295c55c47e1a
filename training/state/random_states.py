"""The global random generators of a process: their state as plain values, set at the start and restored on resume."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_random_states(seed: int) -> None:
    """Set every global random generator at the start of a fresh run."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """Return the state of every global random generator as tensors and plain values.

    Training draws nothing from them that its position does not determine (`utils.seeding`); they are kept for whatever
    a detector or library may draw beside that.
    """
    _, keys, position, has_gauss, cached_gaussian = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": {
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached_gaussian": float(cached_gaussian),
        },
        "torch": torch.get_rng_state(),
        "torch_cuda": _of_gpus(),
    }


def _of_gpus() -> list[torch.Tensor]:
    """Return the states of all GPUs where CUDA is in use; to ask for them would start it."""
    is_in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state_all() if is_in_use else []


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Set every global random generator; those of GPUs only where there are as many GPUs as there were."""
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    numpy_state = states["numpy"]
    np.random.set_state(
        (
            "MT19937",
            numpy_state["keys"].numpy().astype(np.uint32),
            numpy_state["position"],
            numpy_state["has_gauss"],
            numpy_state["cached_gaussian"],
        )
    )
    torch.set_rng_state(states["torch"])
    if len(states["torch_cuda"]) == torch.cuda.device_count():
        for device, state in enumerate(states["torch_cuda"]):
            torch.cuda.set_rng_state(state, device)
