"""What --precision means: one context and one way to scores, for training, validation and evaluation."""

from __future__ import annotations

import torch

from models.detector import DetectorOutput
from models.precision import autocast, log_odds
from tests.test_architecture import SOURCES, module_name


def test_bf16_multiplies_in_bfloat16_and_fp32_as_it_is() -> None:
    weights = torch.ones(2, 2)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with autocast(torch.device("cpu"), precision):
            assert (weights @ weights).dtype == dtype


def test_scores_are_float32_without_a_gradient_whatever_the_precision() -> None:
    output = DetectorOutput(torch.tensor([[-3.0, -1.0]], dtype=torch.bfloat16, requires_grad=True))
    found = log_odds(output)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert found.tolist() == [2.0]


def test_only_one_file_turns_bfloat16_on() -> None:
    """Front-ends turn it off where it would cost too many digits."""
    users = {module_name(path) for path in SOURCES if "torch.bfloat16" in path.read_text(encoding="utf-8")}
    assert users == {"models.precision"}
