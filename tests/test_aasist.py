"""aasist and aasist_l: the published sizes, names and weights, every part by hand, and training to the same bits."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from main import main
from models.aasist import Aasist, ResidualBlock
from models.build import create_detector, rebuild_detector
from models.detector import Detector, DetectorSettings
from models.graph_attention import GraphAttention, GraphPooling, HeterogeneousGraphAttention
from models.sinc_convolution import SincConvolution, mel_edges_hz
from tests.comparing import assert_same_training
from tests.conftest import write_corpus
from tests.loading import load_weights
from training.checkpoints.weights import load_into
from training.loop.step import take_step
from training.tasks.losses import weighted_cross_entropy

PUBLISHED = os.environ.get("BONAFIDE_PUBLISHED_AASIST")
needs_published = pytest.mark.skipif(
    PUBLISHED is None, reason="BONAFIDE_PUBLISHED_AASIST names no checkout of github.com/clovaai/aasist"
)
NAMES = {"aasist": "AASIST", "aasist_l": "AASIST-L"}
SHORTEST = 2315


def detector(model_type: str = "aasist_l", seed: int = 1) -> Detector:
    torch.manual_seed(seed)
    return create_detector(DetectorSettings(model_type=model_type, ssl_model=""))


def noise(batch: int = 2, samples: int = 6000, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed)) / 10


@pytest.fixture
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize(
    ("model_type", "expected", "with_buffers"), [("aasist", 297_866, 299_550), ("aasist_l", 85_306, 86_270)]
)
def test_there_are_as_many_parameters_as_published(model_type: str, expected: int, with_buffers: int) -> None:
    found = detector(model_type)
    assert sum(parameter.numel() for parameter in found.parameters()) == expected
    assert sum(tensor.numel() for tensor in found.state_dict().values()) == with_buffers


def published_model(name: str) -> Any:
    """Return the published network with its weights, from the checkout that the environment names."""
    assert PUBLISHED is not None
    spec = importlib.util.spec_from_file_location("published_aasist", Path(PUBLISHED, "models", "AASIST.py"))
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.Model(json.loads(Path(PUBLISHED, "config", f"{name}.conf").read_text())["model_config"])
    model.load_state_dict(torch.load(published_weights(name), map_location="cpu", weights_only=True), strict=True)
    return model.eval()


def published_weights(name: str) -> Path:
    assert PUBLISHED is not None
    return Path(PUBLISHED, "models", "weights", f"{name}.pth")


@needs_published
@pytest.mark.parametrize("samples", [SHORTEST, 20_000, 64_600])
@pytest.mark.parametrize(("model_type", "name"), NAMES.items())
def test_the_published_weights_load_key_for_key_and_give_the_published_logits(
    model_type: str, name: str, samples: int
) -> None:
    ours = detector(model_type).eval()
    weights = load_weights(published_weights(name))
    assert list(ours.state_dict()) == list(weights.state_dict)
    load_into(ours, weights)
    with torch.inference_mode():
        _, logits = published_model(name)(noise(samples=samples))
        embedding = ours.analyse(noise(samples=samples)).embedding
        found = ours.get_submodule("out_layer")(embedding)
        log_probabilities = ours(noise(samples=samples))
    torch.testing.assert_close(found, logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(log_probabilities, logits.log_softmax(dim=1), atol=1e-4, rtol=0)


def filled_by_formula(model_type: str) -> Detector:
    """Return a detector whose weights depend on no random generator: sines of a running number, variances positive."""
    filled, number = detector(model_type).eval(), 0
    for name, tensor in filled.state_dict().items():
        if tensor.is_floating_point():
            values = np.sin(0.7 * np.arange(number, number + tensor.numel()) + 1) / 4
            if name.endswith(("running_var", "bn.weight", "bn1.weight", "bn2.weight")):
                values = 1 + values
            tensor.copy_(torch.tensor(values.reshape(tensor.shape)))
            number += tensor.numel()
    return filled


# Computed once with this code, when it gave the published logits of the published weights to within 3e-6.
@pytest.mark.parametrize(
    ("model_type", "expected"),
    [("aasist", [1.15971, -0.56077, 0.93804, 0.53889]), ("aasist_l", [1.9791, -0.93533, 0.2875, 1.11528])],
)
def test_the_numbers_are_those_of_the_first_day(model_type: str, expected: list[float]) -> None:
    time = torch.arange(8000, dtype=torch.float64)
    waveform = (0.3 * torch.sin(time**1.5 / 100)).float().unsqueeze(0)
    with torch.inference_mode():
        embedding = filled_by_formula(model_type).analyse(waveform).embedding
    assert embedding is not None
    torch.testing.assert_close(embedding[0, ::40], torch.tensor(expected), atol=2e-4, rtol=2e-4)


def test_the_filters_pass_one_band_each_and_are_not_saved() -> None:
    layer = SincConvolution(70, 128)
    assert list(layer.state_dict()) == []
    assert layer.filters.shape == (70, 1, 129)
    edges = mel_edges_hz(70, 8000)
    response = np.abs(np.fft.rfft(layer.filters[:, 0].numpy(), 16_000, axis=1))  # one value per Hz
    for number in (40, 55, 69):
        centre, width = (edges[number] + edges[number + 1]) / 2, edges[number + 1] - edges[number]
        assert response[number].argmax() == pytest.approx(centre, abs=width / 2)
        assert response[number, : int(centre - width - 150)].max() < 0.02


def test_graph_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    layer, nodes = GraphAttention(4, 3, temperature=2.0).eval(), torch.randn(1, 5, 4)
    rows = []
    for one in nodes[0]:
        heed = torch.stack([torch.tanh(layer.att_proj(one * other)) @ layer.att_weight[:, 0] / 2 for other in nodes[0]])
        mean = torch.softmax(heed, dim=0) @ nodes[0]
        rows.append(layer.proj_with_att(mean) + layer.proj_without_att(one))
    torch.testing.assert_close(layer(nodes), torch.selu(layer.bn(torch.stack(rows))).unsqueeze(0))


def test_heterogeneous_attention_compares_each_pair_of_kinds_by_a_vector_of_its_own() -> None:
    torch.manual_seed(0)
    layer = HeterogeneousGraphAttention(4, 3, temperature=2.0).eval()
    first, second, master = torch.randn(1, 2, 4), torch.randn(1, 3, 4), torch.randn(1, 1, 4)
    nodes = [*layer.proj_type1(first)[0], *layer.proj_type2(second)[0]]
    vectors = {
        (0, 0): layer.att_weight11,
        (0, 1): layer.att_weight12,
        (1, 0): layer.att_weight12,
        (1, 1): layer.att_weight22,
    }
    rows = []
    for i, one in enumerate(nodes):
        heed = [
            torch.tanh(layer.att_proj(one * other)) @ vectors[i > 1, j > 1][:, 0] / 2 for j, other in enumerate(nodes)
        ]
        mean = torch.softmax(torch.stack(heed), dim=0) @ torch.stack(nodes)
        rows.append(layer.proj_with_att(mean) + layer.proj_without_att(one))
    updated = torch.selu(layer.bn(torch.stack(rows)))
    heard = torch.stack(
        [torch.tanh(layer.att_projM(one * master[0, 0])) @ layer.att_weightM[:, 0] / 2 for one in nodes]
    )
    listened = torch.softmax(heard, dim=0) @ torch.stack(nodes)
    new_master = layer.proj_with_attM(listened) + layer.proj_without_attM(master[0, 0])
    found = layer(first, second, master)
    for one, expected in zip(found, (updated[:2], updated[2:], new_master.unsqueeze(0)), strict=True):
        torch.testing.assert_close(one, expected.unsqueeze(0))


@pytest.mark.parametrize(("ratio", "kept"), [(0.5, 2), (0.7, 3), (0.1, 1)])
def test_pooling_keeps_the_best_nodes_scaled_by_their_scores(ratio: float, kept: int) -> None:
    torch.manual_seed(0)
    layer, nodes = GraphPooling(ratio, 4).eval(), torch.randn(1, 5, 4)
    scores = torch.sigmoid(layer.proj(nodes))[0, :, 0]
    best = scores.argsort(descending=True)[:kept]
    torch.testing.assert_close(layer(nodes)[0], nodes[0, best] * scores[best].unsqueeze(1))


@pytest.mark.parametrize("channels", [(1, 4), (4, 4), (4, 6)])
def test_a_residual_block_is_its_formula(channels: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block, image = ResidualBlock(*channels, number=1).eval(), torch.randn(2, channels[0], 5, 31)
    shortcut = block.conv_downsample(image) if channels[0] != channels[1] else image
    expected = block.conv2(torch.selu(block.bn2(block.conv1(image)))) + shortcut
    torch.testing.assert_close(block(image), expected[..., :30].unflatten(-1, (10, 3)).amax(dim=-1))


def test_the_shortest_waveform_and_the_usual_one_give_probabilities() -> None:
    for samples in (SHORTEST, 64_600):
        output = detector().eval().analyse(noise(samples=samples))
        torch.testing.assert_close(output.log_probabilities.exp().sum(dim=1), torch.ones(2))
        assert output.embedding is not None
        assert (output.embedding.shape, output.projection, output.attention) == ((2, 160), None, None)


def test_silence_gives_finite_probabilities() -> None:
    assert detector().eval()(torch.zeros(1, 64_600)).isfinite().all()
    assert detector().train()(torch.zeros(1, 64_600)).isfinite().all()


def test_an_utterance_does_not_depend_on_its_batch() -> None:
    found = detector().eval()
    torch.testing.assert_close(found(noise(3))[1:2], found(noise(3)[1:2]), atol=1e-5, rtol=1e-4)


def test_every_trainable_weight_gets_a_gradient_and_only_bn1_is_not_trained() -> None:
    found = detector()
    found(noise()).sum(dim=0)[1].backward()
    without = {name for name, parameter in found.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in found.named_parameters() if ".bn1." in name}
    assert not any(parameter.requires_grad for name, parameter in found.named_parameters() if name in without)


def weights_after_training(found: Detector) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    optimizer = torch.optim.Adam(found.train().parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        weighted_cross_entropy(found(noise(4)), torch.tensor([0, 1, 0, 1])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return found.state_dict()


@pytest.mark.usefixtures("deterministic")
def test_training_gives_the_same_bits_twice_and_moves_the_statistics_of_batches() -> None:
    first = detector()
    before = copy.deepcopy(first.state_dict())
    trained, again = weights_after_training(first), weights_after_training(detector())
    assert all(torch.equal(trained[name], again[name]) for name in trained)
    assert not torch.equal(trained["first_bn.running_var"], before["first_bn.running_var"])
    assert trained["first_bn.num_batches_tracked"] == 2


def test_parameters_keep_the_usual_layout_through_a_step() -> None:
    found = detector()
    weights_after_training(found)
    assert all(parameter.is_contiguous() for parameter in found.parameters())


def test_a_rebuilt_detector_needs_no_front_end_and_gives_the_same_bits() -> None:
    found = detector().eval()
    assert isinstance(found, Aasist)
    assert found.front_end_config == {}
    rebuilt = rebuild_detector(found.settings, {}).eval()
    rebuilt.load_state_dict(found.state_dict(), strict=True)
    assert torch.equal(rebuilt(noise()), found(noise()))


def test_a_run_stopped_within_an_epoch_and_resumed_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=2, dev=2)
    typed = ["--model_type", "aasist_l", "--batch_size", "1", "--lr", "1e-3", "--num_workers", "0", "--num_epochs", "1"]
    typed += ["--database_path", str(corpus), "--auto_resume", "--algo", "5"]
    stop_after = [1]  # training steps, counted over all runs

    def watched(*arguments: Any) -> Any:
        result = original(*arguments)
        stop_after[0] -= 1
        if stop_after[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    original = take_step
    monkeypatch.setattr("training.loop.trainer.take_step", watched)
    folders = []
    for name, exit_codes in (("stopped", [143, 0]), ("undisturbed", [0])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert [main(typed) for _ in exit_codes] == exit_codes
        (folder,) = (tmp_path / name / "models").iterdir()
        folders.append(folder)
    assert folders[0].name == "aasist_l_DF_CCE_1_1_0.001_group3_contrastiveFalse_algo5"
    assert_same_training(*folders)


@needs_published
def test_training_starts_from_the_published_weights(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_corpus(workplace / "corpus", train=2, dev=2)
    typed = ["--model_type", "aasist_l", "--model_path", str(published_weights("AASIST-L")), "--num_epochs", "1"]
    assert main([*typed, "--database_path", str(corpus), "--batch_size", "2", "--num_workers", "0"]) == 0
    assert "from the weights in" in capsys.readouterr().out
