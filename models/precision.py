"""What --precision means wherever a detector runs: the context of its forward pass, and scores that are float32."""

from __future__ import annotations

import torch
from torch import Tensor

from models.detector import DetectorOutput, scores


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context for a forward pass: bfloat16 where weights stay float32 for `bf16`, nothing for `fp32`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def log_odds(output: DetectorOutput) -> Tensor:
    """Return the scores `(batch,)` of an output as float32 on the CPU, whatever its precision; no gradient."""
    return scores(output.log_probabilities.detach().float()).cpu()
