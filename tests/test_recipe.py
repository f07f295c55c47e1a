"""Whole trainings by each recipe: exact across stops, and ended by --patience."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from main import main
from tests.comparing import assert_same_training, bits, log_rows
from tests.conftest import SMALL_RUN, DuringStep, write_corpus

# What it takes, how many steps its epochs have, and the steps after which it is stopped. There are 3 batches, and 4
# where they are balanced.
RECIPES = {
    "accumulated": (
        ["--accumulate_steps", "2", "--clip_grad_norm", "0.5", "--precision", "bf16", "--class_weights", "1,2"],
        2,
        (1, 3),
    ),
    "one class": (["--loss", "oc_softmax", "--balanced_batches", "--crop", "random", "--scheduler", "cosine"], 4, (6,)),
    "paired": (["--pair_batches", "--accumulate_steps", "2", "--database_path", "{corpus}/tables"], 2, (1, 3)),
    "focal": (["--loss", "focal", "--focal_gamma", "1.5"], 3, (3,)),
    "infonce": (
        ["--use_contrastive", "--contrastive", "infonce", "--scheduler", "cosine", "--lr_min", "5e-4"],
        3,
        (2, 4),
    ),
}


@pytest.fixture(scope="module")
def uneven_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight bona fide and four spoofed training utterances; in tables each spoof has the one before as its source."""
    folder = write_corpus(tmp_path_factory.mktemp("uneven"), train=16)
    protocol = folder / "ASVspoof2019_LA_cm_protocols" / "ASVspoof2019.LA.cm.train.trn.txt"
    lines = protocol.read_text().splitlines()
    spoofed = [line for line in lines if line.endswith("spoof")]
    protocol.write_text("\n".join(line for line in lines if line not in spoofed[:4]) + "\n")
    (folder / "tables").mkdir()
    for part, letter, count in (("train", "T", 16), ("dev", "D", 8)):
        audio = [f"{folder}/ASVspoof2019_LA_{part}/flac/LA_{letter}_{number:07d}" for number in range(count)]
        rows = ["path,label,source", *(f"{path},bonafide," for path in audio[0::2])]
        rows += [f"{spoof},spoof,{source}" for source, spoof in zip(audio[0::2], audio[1::2], strict=True)][-4:]
        (folder / "tables" / f"{part}.csv").write_text("\n".join(rows) + "\n")
    return folder


def train(folder: Path, corpus: Path, *arguments: str, lr: str = "1e-3", epochs: int = 2) -> int:
    here = Path.cwd()
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    given = ["--database_path", str(corpus), "--num_epochs", str(epochs), "--auto_resume"]
    try:
        return main([*SMALL_RUN, *given, "--lr", lr, *arguments])
    finally:
        os.chdir(here)


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "models").iterdir()
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_exact_across_stops(
    name: str, uneven_corpus: Path, tmp_path: Path, during_step: DuringStep
) -> None:
    recipe, steps_per_epoch, stops = RECIPES[name]
    recipe = [word.format(corpus=uneven_corpus) for word in recipe]
    assert train(tmp_path / "undisturbed", uneven_corpus, *recipe) == 0
    undisturbed = run_folder(tmp_path / "undisturbed")
    assert bits(undisturbed / "checkpoint_epoch_2.pth")["step"] == 2 * steps_per_epoch
    during_step({stop: lambda: os.kill(os.getpid(), signal.SIGTERM) for stop in stops})
    codes: list[int] = []
    while not codes or codes[-1] == 143:
        codes.append(train(tmp_path / "stopped", uneven_corpus, *recipe))
        assert len(codes) <= 1 + len(stops)
    assert codes == [143] * len(stops) + [0]
    assert_same_training(run_folder(tmp_path / "stopped"), undisturbed)
    assert log_rows(run_folder(tmp_path / "stopped")) == log_rows(undisturbed)


def test_patience_ends_training_says_so_and_a_higher_one_goes_on(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a rate that changes no weight, so that no epoch is better than the first."""

    def patient(patience: int) -> str:
        assert train(tmp_path, corpus, "--patience", str(patience), lr="1e-30", epochs=9) == 0
        return capsys.readouterr().out

    def epochs() -> list[str]:
        return sorted(path.name for path in run_folder(tmp_path).glob("checkpoint_epoch_*"))

    assert "Early stopping after epoch 2: none since epoch 1 was better than its val EER of" in patient(1)
    assert epochs() == ["checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"]
    again = patient(1)
    assert "nothing to train" in again
    assert "Early stopping after epoch 2" in again
    assert "repeat the command with a higher --patience" in again
    assert "Early stopping after epoch 3" in patient(2)
    assert len(epochs()) == 3


def test_a_plateau_lowers_the_rate_of_the_epochs_after_it_also_across_a_stop(
    corpus: Path, tmp_path: Path, during_step: DuringStep
) -> None:
    given = ("--scheduler", "plateau", "--plateau_patience", "0", "--plateau_factor", "0.25", "--warmup_steps", "2")
    assert train(tmp_path / "undisturbed", corpus, *given, lr="1e-30", epochs=3) == 0
    undisturbed = run_folder(tmp_path / "undisturbed")
    found = bits(undisturbed / "checkpoint_epoch_3.pth")
    assert [row["learning_rate"] for row in found["history"]] == [1e-30, 1e-30, 0.25e-30]
    assert found["optimizer_state_dict"]["param_groups"][0]["lr"] == 0.0625e-30
    during_step({7: lambda: os.kill(os.getpid(), signal.SIGTERM)})  # the first step at the lower rate
    assert train(tmp_path / "stopped", corpus, *given, lr="1e-30", epochs=3) == 143
    assert train(tmp_path / "stopped", corpus, *given, lr="1e-30", epochs=3) == 0
    assert_same_training(run_folder(tmp_path / "stopped"), undisturbed)
