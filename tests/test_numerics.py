"""What a run of an older numerics is told: what differs for its settings, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.records import record
from training.planning.sessions import begin_session
from training.settings.options import Options
from utils.numerics import CHANGES, NUMERICS, SCORES_AS_OF, changes_since

ROWS: list[tuple[int, dict[str, Any], list[str], str]] = [
    (2, {}, [], "fp32 without --swa: the same bits"),
    (2, {"precision": "bf16"}, ["validation runs in fp32"], "its stored threshold was one of bfloat16 maps"),
    (2, {"model_type": "lcnn", "swa": True}, ["the batch-norm statistics of its mean"], "computed anew at the end"),
    (3, {"accumulate_steps": 3}, [], "the pairs of three are (a + b) + c, as before"),
    (3, {"accumulate_steps": 4}, ["gradients are added in pairs"], "(a + b) + (c + d) is another order"),
    (1, {}, ["resampled by soxr"], "what its audio is, is not known here"),
    (1, {"model_type": "aasist"}, ["resampled by soxr", "batch norm summed"], "aasist on a CPU"),
    (1, {"scheduler": "plateau"}, ["resampled by soxr", "--scheduler plateau"], "it counts otherwise"),
    (4, {"model_type": "hifigan", "accumulate_steps": 2}, ["spectral norm"], "a vocoder, several batches a step"),
    (4, {"model_type": "hifigan"}, [], "a vocoder, one batch a step"),
    (4, {"accumulate_steps": 2}, [], "a detector"),
    (NUMERICS + 1, {}, ["a later version"], "nobody knows what differs"),
]


@pytest.mark.parametrize(("before", "settings", "told", "why"), ROWS)
def test_a_run_is_told_what_differs_for_it_and_its_session_keeps_that(
    before: int, settings: dict[str, Any], told: list[str], why: str
) -> None:
    options = Options(**settings)
    found = changes_since(before, options.as_dict())
    assert len(found) == len(told), why
    assert all(part in sentence for part, sentence in zip(told, found, strict=True)), why
    session = begin_session(record("c.pth", 1, options=options, numerics=before), options, {})
    assert session.changes == ({"numerics": [before, NUMERICS]} if told else {}), why


def test_every_difference_concerns_settings_that_exist() -> None:
    named = {name for changes in CHANGES.values() for change in changes for name in change.concerns}
    assert named <= set(Options().as_dict())
    assert sorted(CHANGES) == list(range(2, NUMERICS + 1))
    assert SCORES_AS_OF in CHANGES
