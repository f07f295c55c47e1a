"""What --precision means: one context and one way to scores, for training, validation and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from main import main
from models.detector import DetectorOutput
from models.precision import autocast, log_odds
from tests.conftest import SMALL_RUN
from tests.loading import load_payload
from tests.test_architecture import SOURCES, module_name
from utils.scores.score_files import read_scores


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


@pytest.mark.usefixtures("workplace")
def test_a_training_in_bf16_validates_in_fp32_so_that_what_it_decides_by_are_the_scores_of_eval(corpus: Path) -> None:
    typed = ["--database_path", str(corpus), *SMALL_RUN, "--num_epochs", "1", "--precision", "bf16"]
    assert main(typed) == 0
    (path,) = Path("models").glob("*/checkpoint_epoch_1.pth")
    protocol = corpus / "ASVspoof2019_LA_cm_protocols" / "ASVspoof2019.LA.cm.dev.trl.txt"
    validated = load_payload(path)["last_validation"]["scores"].numpy()

    def furthest(*more: str) -> float:
        typed = ["--eval", "--model_path", str(path), "--protocols_path", str(protocol), "--eval_output", "s.txt"]
        assert main([*typed, *more]) == 0
        return float(np.abs(read_scores(Path("s.txt")).scores - validated).max())

    assert furthest() < 1e-5
    assert furthest("--precision", "bf16") > 1e-4
