"""The mean of several epochs: which ones, the mean by hand, and --eval with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from main import main
from tests.conftest import SMALL_RUN, trained_run
from tests.records import metrics, record
from training.evaluation.averaging import epochs_to_average, mean_of_weights
from utils.errors import UserError
from utils.scores.score_files import read_scores


@pytest.mark.parametrize(
    ("which", "number", "expected"),
    [("last", 2, [3, 4]), ("best", 2, [1, 3]), ("best", 3, [1, 2, 3]), ("last", 9, [1, 2, 3, 4])],
)
def test_the_last_or_the_best_epochs_are_taken_oldest_first(which: str, number: int, expected: list[int]) -> None:
    eers = {1: 4.0, 2: 5.0, 3: 3.0, 4: 9.0}
    records = [record(f"{epoch}.pth", epoch, last=metrics(epoch, val_eer=eer)) for epoch, eer in eers.items()]
    records.insert(0, record("step.pth", 3, batches_done=2))
    assert [found.epoch for found in epochs_to_average(reversed(records), number, which)] == expected


def test_the_mean_is_that_worked_by_hand_and_counters_are_those_of_the_last_file(tmp_path: Path) -> None:
    for number, (weight, seen) in enumerate([(1.0, 10), (2.0, 20), (6.0, 30)]):
        torch.save({"weight": torch.tensor([weight, -weight]), "seen": torch.tensor(seen)}, tmp_path / f"{number}.pth")
    mean = mean_of_weights([tmp_path / f"{number}.pth" for number in range(3)]).state_dict
    assert mean["weight"].tolist() == [3.0, -3.0] and mean["weight"].dtype == torch.float32
    assert mean["seen"].item() == 30


def test_files_of_different_detectors_have_no_mean(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "b.pth")
    with pytest.raises(UserError, match="holds other layers than"):
        mean_of_weights([tmp_path / "a.pth", tmp_path / "b.pth"])


@pytest.fixture(scope="module")
def run_folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("averaged"), corpus, num_epochs=2)


def arguments(run_folder: Path, corpus: Path, *more: str) -> list[str]:
    protocol = corpus / "ASVspoof2019_LA_cm_protocols" / "ASVspoof2019.LA.cm.train.trn.txt"
    typed = ["--eval", "--model_path", str(run_folder), "--database_path", str(corpus)]
    return [*typed, "--protocols_path", str(protocol), *more]


def test_the_mean_of_two_epochs_scores_as_the_mean_weights_do(
    run_folder: Path, corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(run_folder, corpus, "--average_checkpoints", "2", "--eval_output", "mean.txt")) == 0
    assert "the mean of the weights of 2 epochs" in capsys.readouterr().out
    paths = [run_folder / f"checkpoint_epoch_{epoch}.pth" for epoch in (1, 2)]
    torch.save(dict(mean_of_weights(paths).state_dict), "mean.pt")
    bare = arguments(Path("mean.pt"), corpus, *SMALL_RUN, "--eval_output", "bare.txt")
    assert main(bare) == 0
    assert Path("bare.txt").read_bytes() == Path("mean.txt").read_bytes()
    assert main(arguments(run_folder, corpus, "--eval_output", "last.txt")) == 0
    last, mean = read_scores(Path("last.txt")).scores, read_scores(Path("mean.txt")).scores
    assert (last != mean).any()


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--average_checkpoints", "3"], 1, "holds 2 epoch checkpoints"),
        (["--average_checkpoints", "1"], 2, "is 2 or more, found 1"),
        (["--average_checkpoints", "2", "--model_path", "a_file.pth"], 1, "pass --model_path FOLDER"),
    ],
)
def test_what_has_no_mean_is_a_sentence(
    more: list[str],
    code: int,
    words: str,
    run_folder: Path,
    corpus: Path,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(arguments(run_folder, corpus, *more)) == code
    assert words in capsys.readouterr().err
