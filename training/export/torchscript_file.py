"""TorchScript: a network as torch traced it, for programs that have torch (C++ too) and not this source.

torch calls tracing deprecated since 2.14 and says that it may break from Python 3.14 on; ONNX is what lasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from training.export.exportable import Exportable, Score
from training.export.quiet import quiet


def trace(network: Exportable) -> torch.jit.ScriptModule:
    """Return the network traced on two inputs of the usual length; what depends on that may be baked in."""
    with torch.no_grad(), quiet():
        given = network.taken.make(2, network.taken.length)
        traced = torch.jit.trace(network, (given,), check_trace=False)  # type: ignore[no-untyped-call]
    return cast(torch.jit.ScriptModule, traced)


def write(traced: torch.jit.ScriptModule, metadata: Mapping[str, str], file: BinaryIO) -> None:
    """Write a traced network, each of `metadata` as an extra file of that name in the archive."""
    with quiet():
        torch.jit.save(traced, file, _extra_files={name: value.encode() for name, value in metadata.items()})


def open_file(path: Path, names: Mapping[str, str]) -> tuple[Score, dict[str, str]]:
    """Return the network in a file on the CPU, and what it holds of the metadata that `names` names."""
    found: dict[str, Any] = dict.fromkeys(names, "")
    with quiet():
        traced = torch.jit.load(path, map_location="cpu", _extra_files=found)  # type: ignore[no-untyped-call]

    def score(given: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = traced(given)
        return outputs

    return score, {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}
