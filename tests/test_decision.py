"""The threshold and calibration of a validation: kept with the weights, the same after a stop, absent in old files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from main import main
from tests.conftest import SMALL_RUN
from training.checkpoints.decision import Decision
from training.inference import load_detector
from training.tasks.fitted_decision import decision_from


def train(corpus: Path, *arguments: str) -> Path:
    assert main(["--database_path", str(corpus), *SMALL_RUN, "--num_epochs", "2", *arguments]) in (0, 130)
    return next(Path("models").iterdir())


def recorded(path: Path, capsys: pytest.CaptureFixture[str]) -> Decision | None:
    capsys.readouterr()
    assert main(["--inspect_checkpoint", str(path), "--json"]) == 0
    return Decision.from_dict(json.loads(capsys.readouterr().out)["record"]["decision"])


def test_scores_that_are_alike_give_no_calibration_and_no_verdict() -> None:
    made = decision_from(3, [1.0, 1.0, 1.0], [True, False, False])
    assert (made.scale, made.offset, made.rule()) == (None, None, None)
    assert "gave every utterance the same score" in made.why_undecided


def test_a_decision_comes_back_from_json_as_it_was() -> None:
    scores, truth = [2.0, 0.1, -1.0, 0.5], [True, True, False, False]
    made = decision_from(9, scores, truth)
    assert made.scale is not None and made.scale > 0
    assert Decision.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    assert Decision.from_dict(None) is None


def test_checkpoints_best_weights_and_inference_have_the_threshold(
    corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(corpus)
    of_last = recorded(run / "checkpoint_epoch_2.pth", capsys)
    assert of_last is not None and of_last.step == 6
    payload = torch.load(run / "checkpoint_epoch_2.pth", weights_only=True)
    assert Decision.from_dict(payload["decision"]) == of_last
    for path in (run / "checkpoint_epoch_2.pth", run / "best_model_eer.pth"):
        assert load_detector(path).decision == recorded(path, capsys)
    main(["--inspect_checkpoint", str(run)])
    said = capsys.readouterr().out
    assert f"Threshold: none, and so no verdict: {of_last.why_undecided}" in said  # 8 utterances are too few


def test_a_stop_between_validation_and_the_end_of_the_epoch_changes_no_bit_of_it(
    corpus: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    during_step: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    import signal  # noqa: PLC0415

    run = train(corpus, "--val_interval", "2")
    undisturbed = recorded(run / "checkpoint_epoch_2.pth", capsys)
    (workplace / "again").mkdir()
    monkeypatch.chdir(workplace / "again")
    during_step({5: lambda: signal.raise_signal(signal.SIGINT)})
    stopped = train(corpus, "--val_interval", "2")
    step = recorded(stopped / "checkpoint_step_5.pth", capsys)
    assert step is None  # these weights were not validated
    stored = torch.load(stopped / "checkpoint_step_5.pth", weights_only=True)["decision"]
    assert stored["step"] == 4
    run = train(corpus, "--val_interval", "2", "--auto_resume")
    assert recorded(run / "checkpoint_epoch_2.pth", capsys) == undisturbed != None  # noqa: E711


def test_a_file_of_an_earlier_version_has_none_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    old = next(Path(__file__).parent.glob("fixtures/format_1/checkpoint_epoch_*.pth"))
    assert recorded(old, capsys) is None
    main(["--inspect_checkpoint", str(old)])
    assert "Threshold: no stored calibration: " in capsys.readouterr().out
