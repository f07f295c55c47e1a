"""The heatmaps: which utterances, which files, what they show, and that drawing them disturbs nothing."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.patches import Rectangle

from models.build import create_detector
from models.detector import Detector, DetectorSettings
from training.runs.directory import RunDirectory
from training.settings.options import Options
from training.tasks.detection import DetectionTask
from training.tasks.heatmap_figures import (
    AttentionPicture,
    Prediction,
    layer_importance_figure,
    layer_time_figure,
    sample_figure,
    statistics_text,
    verdict_text,
)
from training.tasks.heatmaps import Sample, _write, choose_balanced, draw_part, write_attention_heatmaps
from utils.corpora import CorpusPart
from utils.corpora.protocols import Protocol, Trial
from utils.waiting import NEVER


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return create_detector(DetectorSettings(ssl_model="compact", group_size=4))


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw few pixels: they take most of the time."""
    monkeypatch.setattr("training.tasks.heatmaps.DOTS_PER_INCH", 30)


def samples(*classes: bool) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [(f"LA_D_{n}", rng.standard_normal(4000).astype(np.float32), label) for n, label in enumerate(classes)]


def picture() -> AttentionPicture:
    """Three layers in groups of two, four frames, two seconds."""
    temporal = np.array([[0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.1, 0.1], [0.0, 0.0, 0.5, 0.5]])
    layer_importance = np.array([0.1, 0.3, 0.6])
    return AttentionPicture(
        temporal=temporal,
        intra=np.array([[0.25, 0.75], [1.0, 0.0]]),
        inter=np.array([0.4, 0.6]),
        layer_importance=layer_importance,
        time_importance=layer_importance @ temporal,
        prior=np.full(4, 0.25),
        seconds=2.0,
    )


@pytest.mark.parametrize(
    ("labels", "how_many", "expected", "reason"),
    [
        ([0] * 6 + [1] * 2, 4, [0, 3, 6, 7], "half of each, over all of the protocol and not its first lines"),
        ([0, 1] * 4, 3, [0, 1, 5], "an odd one is bona fide"),
        ([0] * 8 + [1], 4, [0, 2, 5, 8], "a class that is too small is filled up from the other"),
        ([1] * 8 + [0], 4, [0, 2, 5, 8], "either way round"),
        ([0] * 3, 2, [0, 1], "one class only"),
        ([0, 1], 10, [0, 1], "fewer than asked for"),
        ([0, 1], 1, [1], "a single one"),
        ([], 4, [], "nothing to choose from"),
    ],
)
def test_the_choice_of_utterances_is_balanced(
    labels: list[int], how_many: int, expected: list[int], reason: str
) -> None:
    assert choose_balanced(labels, how_many) == expected, reason


@pytest.mark.parametrize(
    ("flags", "epoch", "expected", "reason"),
    [
        ({"visualize_attention": False}, 2, [], "not asked for"),
        ({}, 1, [], "2 epochs are not done yet"),
        ({}, 2, ["attention_epoch_2"], "every 2 epochs"),
        ({}, 5, ["final_attention_analysis"], "the last one"),
        ({"viz_frequency": 5}, 5, ["attention_epoch_5", "final_attention_analysis"], "both"),
        ({"viz_frequency": 0}, 4, [], "0 means only at the end"),
    ],
)
def test_heatmaps_are_drawn_when_the_flags_say_so(
    *, flags: dict[str, Any], epoch: int, expected: list[str], reason: str, detector: Detector, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.zeros(16_000), 16_000)
    trials = tuple(Trial("speaker", f"LA_D_{n}", "A01", is_bona_fide=False) for n in range(3))
    part = CorpusPart("dev", Protocol(Path("protocol.txt"), trials, ""), (Path("a.wav"),) * 3)
    wanted = {"visualize_attention": True, "viz_frequency": 2, "viz_samples": 1, "num_epochs": 5, **flags}
    options = Options(**wanted)
    run = RunDirectory.of(options)
    task = DetectionTask(options, torch.device("cpu"))
    for folder in task.folders_to_draw(epoch, run, is_last=epoch == options.num_epochs):
        task.draw({"model": detector}, part, folder, NEVER)
    found = sorted(path.name for path in run.folder.iterdir()) if run.folder.exists() else []
    assert found == expected, reason


def test_every_class_and_every_sample_gets_its_figures(detector: Detector, tmp_path: Path) -> None:
    written = write_attention_heatmaps(detector, samples(True, False), tmp_path, "cpu")
    assert sorted(written) == sorted(tmp_path.iterdir())
    of_classes = {path.name for path in written[:8]}
    kinds = ("temporal_attention_heatmap", "intra_group_attention", "inter_group_attention", "layer_importance")
    assert of_classes == {f"{kind}_{name}.png" for kind in kinds for name in ("bonafide", "spoof")}
    pattern = r"sample_00[01]_(bonafide|spoof)_pred_(bonafide|spoof)_(ok|wrong)\.png"
    for path in written[8:]:
        match = re.fullmatch(pattern, path.name)
        assert match
        assert (match[1] == match[2]) == (match[3] == "ok")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_a_class_without_samples_is_left_out_and_that_is_said(
    detector: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = write_attention_heatmaps(detector, samples(False), tmp_path, "cpu")
    assert len(written) == 5
    assert "no bona fide utterance" in capsys.readouterr().out


def test_utterances_of_a_set_without_keys_are_drawn_as_unlabelled(
    detector: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    trials = tuple(Trial("-", f"E_{n}", "-", is_bona_fide=None) for n in range(6))
    part = CorpusPart("eval", Protocol(Path("trials.txt"), trials, ""), (tmp_path / "a.wav",) * 6)
    draw_part(detector, part, 2, tmp_path / "out", torch.device("cpu"))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 6 and sum(name.endswith("_unlabelled.png") for name in names) == 4
    assert [re.sub("(bonafide|spoof)", "X", name) for name in names if name.startswith("sample")] == [
        "sample_000_unlabelled_pred_X.png",
        "sample_001_unlabelled_pred_X.png",
    ]
    said = capsys.readouterr().out
    assert "6 figures in" in said and "utterances without a key" in said and "[NOTE]" not in said


def test_drawing_leaves_random_numbers_mode_and_weights_alone(detector: Detector, tmp_path: Path) -> None:
    detector.train()
    detector.get_submodule("front_end").eval()
    modes = {name: module.training for name, module in detector.named_modules()}
    weights = {name: weight.clone() for name, weight in detector.state_dict().items()}
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    write_attention_heatmaps(detector, samples(True), tmp_path, "cpu")
    after = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert {name: module.training for name, module in detector.named_modules()} == modes
    assert all(torch.equal(weight, detector.state_dict()[name]) for name, weight in weights.items())
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_drawing_again_replaces_the_figures_and_leaves_no_other_file(detector: Detector, tmp_path: Path) -> None:
    first = {path: path.read_bytes() for path in write_attention_heatmaps(detector, samples(True), tmp_path, "cpu")}
    again = write_attention_heatmaps(detector, samples(True), tmp_path, "cpu")
    assert {path: path.read_bytes() for path in again} == first
    assert sorted(tmp_path.iterdir()) == sorted(first)


def test_the_heatmap_has_seconds_layers_from_1_and_the_prior_above_it() -> None:
    figure = layer_time_figure(picture(), "Mean of 2 spoof utterances")
    above, heatmap = figure.axes[:2]
    assert tuple(heatmap.images[0].get_extent()) == (0, 2.0, 0.5, 3.5)
    assert list(heatmap.get_yticks()) == [1, 2, 3]
    assert (heatmap.get_xlabel(), heatmap.get_ylabel()) == ("time (s)", "layer")
    prior = above.lines[1]
    assert "prior" in str(prior.get_label())
    assert np.asarray(prior.get_ydata()).tolist() == [1, 1, 1, 1]
    assert np.asarray(prior.get_xdata()).tolist() == [0.25, 0.75, 1.25, 1.75]


def test_layer_importance_varies_where_attention_over_time_cannot_show_it() -> None:
    """The published plots show the mean over time of a softmax over time: 1/frames for every layer."""
    bars = layer_importance_figure(picture(), "").axes[0].patches
    assert [bar.get_height() for bar in bars if isinstance(bar, Rectangle)] == pytest.approx([0.1, 0.3, 0.6])


def test_a_place_without_layer_is_marked() -> None:
    figure = sample_figure(picture(), Prediction("LA_D_1", is_bona_fide=True, log_odds=1.0))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert [text for text in texts if text.startswith("L3")] == ["L3: 1.00"]
    assert "no layer" in texts


@pytest.mark.parametrize(
    ("is_bona_fide", "log_odds", "says"),
    [
        (True, 2.0, "bona fide (ok)"),
        (True, -2.0, "spoof (wrong)"),
        (False, -2.0, "spoof (ok)"),
        (False, 2.0, "bona fide (wrong)"),
        (False, 0.0, "spoof (ok)"),
        (True, 1e6, "p(bona fide) 1.0000"),
        (None, 2.0, "truth      not known\npredicted  bona fide\n"),
    ],
)
def test_the_box_says_what_was_decided(is_bona_fide: bool | None, log_odds: float, says: str) -> None:
    assert says in verdict_text(Prediction("LA_D_1", is_bona_fide, log_odds))


def test_the_statistics_give_entropies_and_the_strongest_layer() -> None:
    text = statistics_text(picture())
    entropy = -sum(p * math.log(p) for p in (0.4, 0.6))
    assert f"{entropy:.3f}   {math.exp(entropy):.1f} of 2" in text
    assert "strongest layer 3" in text


def test_an_utterance_name_with_a_dollar_sign_is_written_as_it_is(tmp_path: Path) -> None:
    figure = sample_figure(picture(), Prediction("odd $x_1$ name", is_bona_fide=True, log_odds=1.0))
    figure.savefig(tmp_path / "figure.png", dpi=20)
    assert any("odd $x_1$ name" in text.get_text() for axes in figure.axes for text in axes.texts)


@pytest.mark.filterwarnings("error")
def test_an_utterance_name_that_no_font_can_show_is_drawn_without_a_word_of_the_library(tmp_path: Path) -> None:
    figure = sample_figure(picture(), Prediction("a\x1b[2J\x07 录音", is_bona_fide=True, log_odds=1.0))
    _write(figure, tmp_path / "figure.png")
    assert any("a?[2J? 录音" in text.get_text() for axes in figure.axes for text in axes.texts)
