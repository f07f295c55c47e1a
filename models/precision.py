"""What --precision means wherever a network runs: the context of its forward pass, and scores that are float32."""

from __future__ import annotations

import torch
from torch import Tensor

from models.detector import DetectorOutput, scores

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context for a forward pass: `bf16` bfloat16 and `fp16` float16, where weights stay float32.

    Nothing for `fp32`.
    """
    return torch.autocast(device.type, dtype=_TYPES.get(precision, torch.bfloat16), enabled=precision in _TYPES)


def log_odds(output: DetectorOutput) -> Tensor:
    """Return the scores `(batch,)` of an output as float32 on the CPU, whatever its precision; no gradient."""
    return scores(output.log_probabilities.detach().float()).cpu()
