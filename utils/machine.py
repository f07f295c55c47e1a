"""The machine a run trains on: which device, how it is made to give the same bits each time, how it is described."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError
from utils.version import VERSION, git_commit


def choose_device(wanted: str) -> torch.device:
    """Return the device to train on; raises UserError where a GPU is asked for and none is there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda"):
        index = int(wanted.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise UserError(
                f"--device {wanted} is not there: torch sees {torch.cuda.device_count()} GPUs; pass --device cpu"
            )
    return torch.device(wanted)


def make_deterministic(num_threads: int | None = None) -> None:
    """Let torch use only operations that give the same bits each time, with `num_threads` threads where that is given.

    The last bits on a CPU depend on the number of threads, so a run goes on with as many as it began with.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def own_threads() -> int:
    """Return with how many threads torch computes here."""
    return torch.get_num_threads()


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return where and with what this process trains. Bit-equal results on a CPU need the same number of threads."""
    return {
        "host": socket.gethostname(),
        "bonafide": VERSION,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a TorchVersion would be refused by weights_only
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "num_threads": torch.get_num_threads(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def differences_that_may_change_bits(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return `name: old -> new` for what is not as it was and may change the last bits of the results."""
    changes = [(name, before.get(name), now[name]) for name in ("torch", "device")]
    return [f"{name}: {old} -> {new}" for name, old, new in changes if old != new]
