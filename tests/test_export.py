"""A detector as a file for other programs: the same outputs, what it says of itself, or no file under its name."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from main import main
from models.build import create_detector
from models.detector import DetectorSettings, scores
from models.names import DETECTOR_TYPES, FRONT_END_TYPES
from tests.conftest import SMALL_RUN, write_corpus
from tests.loading import load_payload, load_weights
from tests.records import validated
from tests.small_audio import write_sounds
from training.checkpoints.decision import Decision
from training.checkpoints.record import CheckpointRecord
from training.export import onnx_file, torchscript_file
from training.export.checking import (
    TOLERANCE,
    differences,
    random_cases,
    real_case,
    takes_any_length,
)
from training.export.exportable import Score
from training.export.metadata import file_metadata, val_eer_percent
from training.export.scored_detector import WAVEFORMS, ScoredDetector, noise
from training.inference import load_detector
from training.runs.finding import find_source
from utils.audio.waveforms import CROP_SAMPLES

FORMATS = {"onnx": ".onnx", "torchscript": ".torchscript", "safetensors": ".safetensors"}

LENGTHS = {"g3_heatmap": "any", "aasist": "fixed", "aasist_l": "fixed"}  # of others either is right that is checked


NETWORKS = [name for name in DETECTOR_TYPES if name != "aasist"]  # that is AASIST-L with more channels


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after one epoch on a corpus beside it, made once."""
    folder = tmp_path_factory.mktemp("trained")
    corpus = write_corpus(folder / "corpus", train=4, dev=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", "1"]) == 0
    return next((folder / "models").iterdir())


@pytest.fixture
def checkpoint(trained: Path, workplace: Path) -> Path:
    """The checkpoint of that run, alone in an empty folder."""
    return Path(shutil.copy(trained / "checkpoint_epoch_1.pth", "a.pth"))


def untrained(model_type: str) -> ScoredDetector:
    ssl_model = "compact" if model_type in FRONT_END_TYPES else ""
    torch.manual_seed(1)
    return ScoredDetector(create_detector(DetectorSettings(model_type=model_type, ssl_model=ssl_model))).eval()


def greatest(original: Score, exported: Score, cases: Mapping[str, Tensor]) -> float:
    return max(found.greatest for found in differences(original, exported, cases))


# Every detector


@pytest.mark.parametrize("model_type", NETWORKS)
def test_onnxruntime_gives_the_outputs_of_every_detector(model_type: str, tmp_path: Path) -> None:
    detector = untrained(model_type)
    model = onnx_file.converted(detector, any_length=False)  # trying any length takes as long again
    with (tmp_path / "a.onnx").open("wb") as file:
        onnx_file.write(model, {"labels": "spoof,bonafide"}, file)
    score, metadata = onnx_file.open_file(tmp_path / "a.onnx")
    assert metadata == {"labels": "spoof,bonafide"}
    assert greatest(detector, score, random_cases(WAVEFORMS, any_length=False)) < TOLERANCE


@pytest.mark.parametrize("model_type", NETWORKS)
def test_torchscript_gives_the_outputs_of_every_detector(model_type: str, tmp_path: Path) -> None:
    detector = untrained(model_type)
    traced = torchscript_file.trace(detector)
    any_length = takes_any_length(WAVEFORMS, detector, traced)
    if model_type in LENGTHS:
        assert any_length == (LENGTHS[model_type] == "any")
    with (tmp_path / "a.torchscript").open("wb") as file:
        torchscript_file.write(traced, {"labels": "spoof,bonafide"}, file)
    score, metadata = torchscript_file.open_file(tmp_path / "a.torchscript", {"labels": ""})
    assert metadata == {"labels": "spoof,bonafide"}
    assert greatest(detector, score, random_cases(WAVEFORMS, any_length)) < TOLERANCE


# The command


def test_an_onnx_file_runs_in_onnxruntime_without_any_of_this_program(
    checkpoint: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime  # noqa: PLC0415

    assert main(["--export", "onnx", "--model_path", "a.pth"]) == 0
    said = capsys.readouterr()
    assert "Exported a.pth to a.onnx (" in said.out
    assert "waveform (batch, 64600): any batch, this length only" in said.out
    assert f"4 utterances of {trained.parent.parent / 'corpus'}" in said.out
    assert said.err == ""
    session = onnxruntime.InferenceSession("a.onnx")
    assert [(each.name, each.shape) for each in session.get_inputs()] == [("waveform", ["batch", CROP_SAMPLES])]
    assert [each.name for each in session.get_outputs()] == ["log_probabilities", "score"]
    waveform = noise(2, CROP_SAMPLES)
    with torch.inference_mode():
        expected = load_detector(checkpoint).detector(waveform)
    log_probabilities, score = session.run(None, {"waveform": waveform.numpy()})
    np.testing.assert_allclose(log_probabilities, expected, atol=TOLERANCE)
    np.testing.assert_allclose(score, scores(expected), atol=TOLERANCE)
    assert str(Path(__file__).parent.parent).encode() not in Path("a.onnx").read_bytes()


def test_torchscript_runs_in_torch_alone_and_takes_any_length(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--export", "torchscript", "--model_path", "a.pth", "--export_path", "b.pt"]) == 0
    said = capsys.readouterr()
    assert "waveform (batch, samples): any batch, any length" in said.out
    assert said.err == ""
    waveform = noise(2, 50_000)
    with torch.inference_mode():
        log_probabilities, score = torch.jit.load("b.pt")(waveform)  # type: ignore[no-untyped-call]
        expected = load_detector(checkpoint).detector(waveform)
    torch.testing.assert_close(log_probabilities, expected)
    torch.testing.assert_close(score, scores(expected))


def test_safetensors_are_the_same_bits_and_start_a_run(checkpoint: Path, trained: Path) -> None:
    assert main(["--export", "safetensors", "--model_path", "a.pth"]) == 0
    exported, original = load_weights(Path("a.safetensors")).state_dict, load_payload(checkpoint)["model_state_dict"]
    assert set(exported) == set(original)
    assert all(torch.equal(exported[name], tensor) for name, tensor in original.items())
    corpus = str(trained.parent.parent / "corpus")
    start = ["--fresh_start", "--model_path", "a.safetensors", "--database_path", corpus, "--num_epochs", "1"]
    assert main([*SMALL_RUN, *start]) == 0


def test_every_file_says_what_it_is(checkpoint: Path) -> None:
    assert main(["--export", "safetensors", "--model_path", "a.pth"]) == 0
    with safe_open("a.safetensors", framework="pt") as file:
        facts = file.metadata()
    assert facts["labels"] == "spoof,bonafide"
    assert (facts["sample_rate_hz"], facts["samples"], facts["length"]) == ("16000", "64600", "any")
    assert (facts["model_type"], facts["source"], facts["epoch"]) == ("g3_heatmap", "a.pth", "1")
    trained = load_detector(checkpoint)
    assert trained.metrics is not None and float(facts["val_eer_percent"]) == trained.metrics.val_eer
    assert json.loads(facts["settings"])["group_size"] == trained.options.group_size
    assert json.loads(facts["front_end_config"]) == trained.detector.front_end_config


def test_a_folder_and_a_type_name_the_checkpoint(trained: Path, workplace: Path) -> None:
    typed = ["--model_path", str(trained), "--load_checkpoint_type", "best", "--export_path", "b.safetensors"]
    assert main(["--export", "safetensors", *typed]) == 0
    with safe_open("b.safetensors", framework="pt") as file:
        assert file.metadata()["source"].startswith("best_")


def test_the_best_weights_can_be_exported_too(trained: Path, workplace: Path) -> None:
    shutil.copy(trained / "best_model_eer.pth", "best.pth")
    assert main(["--export", "safetensors", "--model_path", "best.pth"]) == 0


# What is not known is not said


def test_a_threshold_and_an_eer_are_stated_only_where_they_are_known_of_these_weights(checkpoint: Path) -> None:
    record, detector = find_source(checkpoint, "last").facts, load_detector(checkpoint).detector
    assert isinstance(record, CheckpointRecord) and record.last is not None
    later = replace(record, validated=None, step=record.step + 1)
    for each, decision, expected in (
        (record, None, record.last["val_eer"]),
        (later, Decision(7, 9.0, 2.0, -0.5), None),
        (replace(later, validated=validated(later.step, 1, 12.5)), None, 12.5),
    ):
        assert val_eer_percent(each) == expected
        facts = file_metadata(each, detector, any_length=False, decision=decision)
        assert facts.get("threshold") == (None if decision is None else "0.25")
        assert ("val_eer_percent" in facts) == (expected is not None)


# Refusals


@pytest.mark.parametrize("name", FORMATS)
def test_weights_without_settings_are_refused_by_every_format(
    checkpoint: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(load_payload(checkpoint)["model_state_dict"], "bare.pth")
    assert main(["--export", name, "--model_path", "bare.pth"]) == 1
    assert "bare.pth holds weights and not the settings of their training" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["a.pth", "bare.pth"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--model_path", "damaged.pth"], "--model_path damaged.pth is damaged"),
        (["--model_path", "nothing.pth"], "--model_path nothing.pth does not exist"),
        (["--model_path", "a.pth", "--export_path", "taken.safetensors"], "exists already: pass another name"),
        (["--model_path", "a.pth", "--export_path", "no/b.safetensors"], "there is no folder no: make it first"),
        (["--model_path", "a.pth", "--export_path", "b.bin"], "for safetensors must end in .safetensors, found b.bin"),
        (["--model_path", "a.pth", "--database_path", "empty"], "--database_path empty holds no audio file"),
    ],
    ids=str,
)
def test_what_cannot_be_exported_is_refused_and_leaves_no_file(
    checkpoint: Path, typed: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    Path("damaged.pth").write_bytes(content)
    Path("taken.safetensors").write_text("mine")
    Path("empty").mkdir()
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert main(["--export", "safetensors", *typed]) == 1
    assert words in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_a_file_that_gives_other_outputs_gets_no_name(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    traced = torchscript_file.trace(untrained("g3_heatmap"))  # of other weights
    monkeypatch.setattr(torchscript_file, "trace", lambda detector: traced)
    assert main(["--export", "torchscript", "--model_path", "a.pth"]) == 1
    assert "a.torchscript was not written: its outputs differ from the original's by" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["a.pth"]


def test_packages_that_are_missing_are_named_with_what_installs_them(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what import then takes for not installed
    assert main(["--export", "onnx", "--model_path", "a.pth"]) == 1
    assert "needs onnxruntime, not installed here: pip install -r requirements-export.txt" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["a.pth"]


# The check itself


def test_what_is_not_a_number_is_never_close() -> None:
    def broken(waveform: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(waveform), 2), torch.nan), torch.zeros(len(waveform))

    assert not any(found.is_close for found in differences(broken, broken, random_cases(WAVEFORMS, any_length=False)))


def test_a_length_that_is_baked_in_is_noticed_whether_it_fails_or_gives_other_values() -> None:
    def original(waveform: Tensor) -> tuple[Tensor, Tensor]:
        return waveform[:, :2], waveform.mean(dim=1)

    def fails(waveform: Tensor) -> tuple[Tensor, Tensor]:
        return waveform[:, :2], waveform.view(-1, CROP_SAMPLES).mean(dim=1)

    def other(waveform: Tensor) -> tuple[Tensor, Tensor]:
        return waveform[:, :2], waveform.sum(dim=1) / CROP_SAMPLES

    assert takes_any_length(WAVEFORMS, original, original)
    assert not takes_any_length(WAVEFORMS, original, fails)
    assert not takes_any_length(WAVEFORMS, original, other)
    assert CROP_SAMPLES not in WAVEFORMS.other_lengths


def test_the_first_utterances_of_any_layout_and_format_make_the_real_case(tmp_path: Path) -> None:
    write_sounds(tmp_path, ["b/2.flac", "b/1.aiff", "a/deep/3.FLAC", "c/4.wav", "d/never_read.wav"])
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "d" / "never_read.wav").write_bytes(b"no sound")
    ((name, waveforms),) = real_case(tmp_path).items()
    assert name == f"4 utterances of {tmp_path}"
    assert waveforms.shape == (4, CROP_SAMPLES)
    assert real_case(tmp_path / "nowhere") == {}
