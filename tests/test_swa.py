"""--swa: which epochs are in the mean, the mean by hand, and scores of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from main import main
from tests.conftest import SMALL_RUN
from tests.loading import load_payload
from tests.records import metrics
from training.checkpoints.history import History, UnfinishedEpoch
from training.settings.tasks import DETECTION
from training.tasks.swa import joins, with_epoch
from utils.scores.score_files import read_scores


def history(eers: list[float]) -> History:
    rows = [metrics(epoch, val_eer=eer) for epoch, eer in enumerate(eers, 1)]
    return History(DETECTION.figures, UnfinishedEpoch(10), (("run-a", 0),), epoch=len(rows), epochs=rows)


@pytest.mark.parametrize(
    ("eers", "below", "expected", "why"),
    [
        ([50.0], 100.0, True, "the first epoch"),
        ([5.0, 4.0], 100.0, True, "better than every one before"),
        ([5.0, 5.0], 100.0, True, "as good as the best: `best_dev_eer >= dev_eer`"),
        ([5.0, 4.0, 4.5], 100.0, False, "better than the first only"),
        ([1.01], 1.0, False, "AASIST's best_dev_eer is 1 at first, which is one percent"),
        ([1.01, 1.0], 1.0, True, "not above it"),
    ],
)
def test_an_epoch_joins_where_no_earlier_one_was_better(
    eers: list[float], below: float, expected: bool, why: str
) -> None:
    assert joins(history(eers), below) is expected, why


def test_the_mean_is_that_of_the_epochs_and_leaves_out_what_is_frozen_or_counts() -> None:
    network = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1), nn.Linear(1, 1))
    network[2].requires_grad_(False)
    mean: dict[str, Any] | None = None
    for epoch, value in ((2, 1.0), (5, 2.0), (6, 6.0)):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.fill_(value)
        before = None if mean is None else {name: tensor.clone() for name, tensor in mean["weights"].items()}
        kept = mean
        mean = with_epoch(mean, network, epoch)
        if kept is not None and before is not None:  # a save in the background may be writing it
            assert all(torch.equal(kept["weights"][name], before[name]) for name in before)
    assert mean is not None and mean["epochs"] == [2, 5, 6]
    assert sorted(mean["weights"]) == ["0.bias", "0.weight", "1.bias", "1.running_mean", "1.running_var", "1.weight"]
    for tensor in mean["weights"].values():
        torch.testing.assert_close(tensor, torch.full_like(tensor, 3.0))


@pytest.fixture(scope="module")
def run_folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs whose EERs tie at a rate that changes the weights in their last digits only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("swa"))
        typed = ["--database_path", str(corpus), *SMALL_RUN, "--lr", "1e-7", "--num_epochs", "2", "--swa"]
        assert main(typed) == 0
        (folder,) = Path("models").iterdir()
        return folder.resolve()


def arguments(model_path: Path, corpus: Path, *more: str) -> list[str]:
    protocol = corpus / "ASVspoof2019_LA_cm_protocols" / "ASVspoof2019.LA.cm.train.trn.txt"
    typed = ["--eval", "--model_path", str(model_path), "--database_path", str(corpus)]
    return [*typed, "--protocols_path", str(protocol), *more]


def test_eval_scores_the_mean_where_swa_is_typed_and_the_epoch_where_it_is_not(
    run_folder: Path, corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = load_payload(run_folder / "checkpoint_epoch_2.pth")
    assert payload["swa"]["epochs"] == [1, 2]
    assert main(arguments(run_folder, corpus, "--swa")) == 0
    assert "the mean of the weights of epochs 1, 2 (--swa), kept in " in capsys.readouterr().out
    (scored,) = run_folder.glob("swa_of_checkpoint_epoch_2_scores_*.txt")
    torch.save(payload["model_state_dict"] | payload["swa"]["weights"], "mean.pt")
    assert main(arguments(Path("mean.pt"), corpus, *SMALL_RUN, "--eval_output", "bare.txt")) == 0
    assert Path("bare.txt").read_bytes() == scored.read_bytes()
    assert main(arguments(run_folder, corpus, "--eval_output", "epoch.txt")) == 0
    assert (read_scores(Path("epoch.txt")).scores != read_scores(scored).scores).any()


@pytest.mark.parametrize(
    ("name", "more", "code", "words"),
    [
        ("best_model_eer.pth", [], 1, "holds no mean of epochs"),
        ("", ["--average_checkpoints", "2"], 2, "pass one of them"),
    ],
)
def test_what_holds_no_mean_is_a_sentence(
    name: str,
    more: list[str],
    code: int,
    words: str,
    run_folder: Path,
    corpus: Path,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(arguments(run_folder / name, corpus, "--swa", *more)) == code
    assert words in capsys.readouterr().err


def test_a_run_without_swa_keeps_none(corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--database_path", str(corpus), *SMALL_RUN, "--num_epochs", "1"]) == 0
    (folder,) = Path("models").iterdir()
    assert "swa" not in load_payload(folder / "checkpoint_epoch_1.pth")
    assert main(arguments(folder, corpus, "--swa")) == 1
    assert "holds no mean of epochs" in capsys.readouterr().err
