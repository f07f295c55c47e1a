"""--swa: which epochs are in the mean, the mean and its batch-norm statistics by hand, and scores of it."""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from main import main
from models.batch_norm import BatchNorm1d, BatchNorm2d
from models.running_statistics import OfBatch
from tests.comparing import differences
from tests.conftest import SMALL_RUN, write_corpus
from tests.loading import load_payload
from tests.records import metrics
from training.checkpoints.history import History, UnfinishedEpoch
from training.data.loading import Batch
from training.settings.options import Options
from training.settings.tasks import DETECTION
from training.state.train_state import TrainState
from training.tasks.detection import DetectionTask
from training.tasks.swa import STATISTICS, SWA, StatisticsAnew, joins, with_epoch
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
    network = nn.Sequential(nn.Linear(2, 1), BatchNorm1d(1), nn.Linear(1, 1))
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
    assert STATISTICS not in payload["swa"], "this detector has no batch norm"
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


def batch_of(inputs: torch.Tensor) -> Batch:
    unused = torch.zeros(len(inputs), dtype=torch.int64)
    return Batch(inputs, unused, unused)


def test_the_statistics_of_the_mean_are_those_of_its_own_maps_each_utterance_counting_alike() -> None:
    network = nn.Sequential(nn.Linear(2, 3), BatchNorm1d(3), nn.Dropout(0.5))
    mean = with_epoch(None, network, 1)
    mean["weights"]["0.weight"].fill_(2.0)
    batches = [torch.randn(size, 2) for size in (5, 5, 2)]
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    anew = StatisticsAnew(network, mean, (1234, 4))
    for number, waveforms in enumerate(batches):
        anew.add(anew.take(batch_of(waveforms), number))
    found = anew.kept()[SWA]
    maps = [functional.linear(part, torch.full((3, 2), 2.0), before["0.bias"]) for part in batches]
    expected = [sum(len(part) * getattr(part, of)(dim=0) for part in maps) / 12 for of in ("mean", "var")]
    torch.testing.assert_close([found[STATISTICS][f"1.running_{of}"] for of in ("mean", "var")], expected)
    assert found["epochs"] == [1]
    assert found["weights"] is mean["weights"]
    assert not differences(before, network.state_dict()), "the network that was trained stays as it is"
    assert torch.equal(state, torch.get_rng_state())


def test_dropout_in_the_pass_draws_by_its_position_alone() -> None:
    network = nn.Sequential(nn.Dropout(0.5), BatchNorm1d(64))

    def variances(*position: int) -> torch.Tensor:
        torch.rand(7)  # whatever was drawn before
        anew = StatisticsAnew(network, with_epoch(None, network, 1), position)
        for number in range(2):
            anew.add(anew.take(batch_of(torch.ones(8, 64)), number))
        found: torch.Tensor = anew.kept()[SWA][STATISTICS]["1.running_var"]
        return found

    assert torch.equal(variances(1234, 4), variances(1234, 4))
    assert not torch.equal(variances(1234, 4), variances(1234, 5))


def test_batches_of_one_size_give_what_torch_gives() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), BatchNorm2d(4))
    batches = [torch.randn(6, 1, 8, 8) for _ in range(3)]
    anew = StatisticsAnew(network, with_epoch(None, network, 1), (0, 1))
    for number, maps in enumerate(batches):
        anew.add(anew.take(batch_of(maps), number))
    torch.optim.swa_utils.update_bn(batches, network)
    theirs = {name: tensor for name, tensor in network.state_dict().items() if "running" in name}
    torch.testing.assert_close(anew.kept()[SWA][STATISTICS], theirs)


def test_a_training_that_goes_on_after_its_end_forgets_the_statistics_also_where_no_epoch_joins() -> None:
    """So its checkpoints are those of a run that had the later end from the beginning."""
    task = DetectionTask(Options(swa=True), torch.device("cpu"))
    networks: dict[str, nn.Module] = {"model": nn.Linear(1, 1)}
    optimizers = task.optimizers(networks)
    kept = {SWA: {"epochs": [1], "weights": {}, STATISTICS: {}}}
    schedules = task.schedules(optimizers, 10)
    task.epoch_completed(TrainState(networks, optimizers, schedules, history([5.0, 6.0]), kept=kept))
    assert kept[SWA] == {"epochs": [1], "weights": {}}


WITH_BATCH_NORM = ["--model_type", "lcnn", "--batch_size", "2", "--num_workers", "0", "--lr", "1e-5", "--swa"]


def train_with_batch_norm(corpus: Path, epochs: int, comment: str) -> tuple[int, Path]:
    typed = [*WITH_BATCH_NORM, "--num_epochs", str(epochs), "--auto_resume", "--comment", comment]
    code = main(["--database_path", str(corpus), *typed])
    return code, max(Path("models").glob(f"*_{comment}"), key=lambda folder: f"CCE_{epochs}_" in folder.name)


def final(folder: Path, epoch: int) -> dict[str, Any]:
    (path,) = folder.glob(f"checkpoint_epoch_{epoch}_*.pth")
    return load_payload(path)


def test_training_ends_with_a_pass_for_the_statistics_and_a_stop_within_it_or_an_earlier_end_changes_no_bit(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(workplace / "corpus", train=4, dev=4)
    code, whole = train_with_batch_norm(corpus, 2, "whole")
    assert code == 0
    assert STATISTICS not in final(whole, 1)[SWA]
    made = final(whole, 2)[SWA]
    assert made[STATISTICS].keys() == {name for name in made["weights"] if "running" in name}
    assert all((made[STATISTICS][name] != made["weights"][name]).any() for name in made[STATISTICS])

    take = StatisticsAnew.take

    def stopped(self: StatisticsAnew, batch: Batch, number: int) -> tuple[int, OfBatch]:
        signal.raise_signal(signal.SIGTERM)
        return take(self, batch, number)

    monkeypatch.setattr(StatisticsAnew, "take", stopped)
    code, cut = train_with_batch_norm(corpus, 1, "cut")
    assert code == 143
    assert not list(cut.glob("checkpoint_epoch_*")), "an epoch whose pass is not done is not completed"
    monkeypatch.setattr(StatisticsAnew, "take", take)
    assert train_with_batch_norm(corpus, 1, "cut") == (0, cut)
    assert STATISTICS in final(cut, 1)[SWA]
    code, cut = train_with_batch_norm(corpus, 2, "cut")
    assert code == 0
    assert not differences(final(whole, 2)[SWA], final(cut, 2)[SWA])
    assert not differences(final(whole, 2)["random_states"], final(cut, 2)["random_states"])

    said = {}
    for epoch in (1, 2):
        capsys.readouterr()
        (path,) = whole.glob(f"checkpoint_epoch_{epoch}_*.pth")
        assert main(arguments(path, corpus, "--swa")) == 0
        said[epoch] = capsys.readouterr().out
    assert "the batch-norm statistics of its mean are the mean of the epochs' own" in said[1]
    assert "batch-norm" not in said[2]
