"""The one-class detector: its decision by hand, its centre in training, in files and in refusals."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from main import main
from models.build import create_detector
from models.detector import Detector, DetectorOutput, DetectorSettings, scores
from models.names import DETECTOR_TYPES, RAW_WAVEFORM_TYPES
from models.one_class import OneClassDetector
from tests.conftest import SMALL_RUN
from training.inference import load_detector
from training.settings.options import Options
from training.tasks.detectors import detector_settings
from training.tasks.losses import make_loss
from utils.errors import UserError

COMPACT = DetectorSettings(ssl_model="compact", one_class=True)


class Directions(Detector):
    """Takes the first two samples of a waveform as its embedding."""

    width: int | None = 2

    @property
    def embedding_width(self) -> int | None:
        return self.width

    def represent(self, waveform: Tensor) -> Tensor:
        return waveform[:, :2]

    def decide(self, representation: Tensor) -> DetectorOutput:
        return DetectorOutput(representation.log_softmax(dim=1), embedding=representation)


def test_the_log_odds_are_20_times_the_cosine_less_0_55() -> None:
    detector = OneClassDetector(Directions(COMPACT))
    detector.centre.data = torch.tensor([3.0, 0.0])
    embeddings = torch.tensor([[5.0, 0.0], [0.0, 2.0], [-0.1, 0.0], [0.55, math.sqrt(1 - 0.55**2)]])
    found = detector(embeddings)
    torch.testing.assert_close(scores(found), torch.tensor([9.0, -11.0, -31.0, 0.0]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(4))


def test_a_detector_without_an_embedding_is_refused() -> None:
    without = Directions(COMPACT)
    without.width = None
    with pytest.raises(UserError, match="--loss oc_softmax needs a detector with an embedding, and --model_type"):
        OneClassDetector(without)


@pytest.mark.parametrize("model_type", DETECTOR_TYPES)
def test_an_embedding_is_as_wide_as_the_detector_says(model_type: str) -> None:
    ssl_model = "" if model_type in RAW_WAVEFORM_TYPES else "compact"
    detector = create_detector(DetectorSettings(model_type=model_type, ssl_model=ssl_model)).eval()
    if detector.embedding_width is not None:
        embedding = detector.analyse(torch.zeros(1, 16_000)).embedding
        assert embedding is not None
        assert embedding.shape == (1, detector.embedding_width)


def test_the_loss_moves_the_centre_and_the_front_end_and_leaves_the_other_decision_alone() -> None:
    torch.manual_seed(1)
    detector = create_detector(COMPACT)
    waveforms, labels = torch.randn(4, 8000), torch.tensor([0, 1, 0, 1])
    make_loss("oc_softmax", (1.0, 1.0), 0.0).mean(detector(waveforms), labels).backward()  # type: ignore[no-untyped-call]
    parts = {name: part.grad for name, part in detector.named_parameters() if "back_end" in name}
    assert {name for name, gradient in parts.items() if gradient is None} == {n for n in parts if "classifier" in n}
    assert detector.get_parameter("detector.front_end.model.encoder.layers.0.final_layer_norm.bias").grad is not None
    gradient = detector.get_parameter("centre").grad
    assert gradient is not None and gradient.norm() > 0


def test_the_centre_is_drawn_by_the_seed() -> None:
    def centre(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return create_detector(COMPACT).get_parameter("centre")

    assert torch.equal(centre(1), centre(1))
    assert not torch.equal(centre(1), centre(2))


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of one epoch with oc_softmax."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("one-class"))
        arguments = [*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", "1", "--loss", "oc_softmax"]
        assert main(arguments) == 0
        (folder,) = (Path.cwd() / "models").iterdir()
    return folder


def test_a_checkpoint_says_its_loss_and_scores_by_its_centre(trained: Path) -> None:
    assert "_oc_softmax_" in trained.name
    found = load_detector(trained / "best_model_eer.pth")
    assert found.options.loss == "oc_softmax"
    assert found.options.class_weights == (1.0, 1.0)
    log_odds = scores(found.detector(torch.randn(3, 16_000)))
    assert ((log_odds >= -31.0001) & (log_odds <= 9.0001)).all()
    stored = torch.load(trained / "checkpoint_epoch_1.pth", weights_only=True)["model_state_dict"]
    assert torch.equal(stored["centre"], found.detector.get_parameter("centre"))


@pytest.mark.parametrize("flag", ["--resume", "--fresh_start"])
def test_weights_of_another_decision_are_refused_naming_the_loss(
    flag: str, trained: Path, corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trained / "checkpoint_epoch_1.pth"
    given = ["--loss", "CCE", "--database_path", str(corpus), "--num_epochs", "2"]
    assert main([*SMALL_RUN, flag, "--model_path", str(file), *given]) == 1
    told = capsys.readouterr().err
    assert "--loss" in told
    assert "another detector" in told if flag == "--resume" else "Most likely --loss differs" in told


@pytest.mark.parametrize(("loss", "one_class"), [("CCE", False), ("focal", False), ("oc_softmax", True)])
def test_the_loss_decides_which_detector_is_built(loss: str, one_class: bool) -> None:
    settings: dict[str, Any] = dataclasses.asdict(detector_settings(Options(loss=loss)))
    assert settings["one_class"] is one_class
