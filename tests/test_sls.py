"""sls and ssl_mean: the published size, every part by hand, any length, and a front-end that can be frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.build import create_detector
from models.detector import Detector, DetectorSettings
from models.front_end import COMPACT_CONFIG, rebuild_front_end
from models.sls import LayerSelection, Sls, fitted
from models.ssl_mean import SslMean


def detector(model_type: str, *, freeze_ssl: bool = False) -> Detector:
    torch.manual_seed(1)
    return create_detector(DetectorSettings(model_type=model_type, ssl_model="compact", freeze_ssl=freeze_ssl))


def noise(samples: int = 4000) -> torch.Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(1)) / 10


def layers() -> torch.Tensor:
    return torch.randn(2, 5, 7, 16, generator=torch.Generator().manual_seed(1))


def back_end() -> LayerSelection:
    torch.manual_seed(1)
    return LayerSelection(16, frames=7).eval()


def test_the_back_end_has_the_published_shapes_on_xls_r() -> None:
    """fc1 takes 22,847 numbers there: 67 x 341, a third of 201 frames and of 1,024 features."""
    with torch.device("meta"):
        module = LayerSelection(1024, 201)
        output = module(torch.empty(2, 24, 201, 1024))
    shapes = {name: tuple(tensor.shape) for name, tensor in module.named_parameters()}
    assert shapes == {
        "first_bn.weight": (1,),
        "first_bn.bias": (1,),
        "fc0.weight": (1, 1024),
        "fc0.bias": (1,),
        "fc1.weight": (1024, 22_847),
        "fc1.bias": (1024,),
        "fc3.weight": (2, 1024),
        "fc3.bias": (2,),
    }
    # The published 340.79 M are these and the 317.39 M of fairseq's XLS-R with what it needs for pretraining only.
    assert sum(parameter.numel() for parameter in module.parameters()) == 23_399_429
    assert (output.log_probabilities.shape, output.embedding.shape) == ((2, 2), (2, 1024))


def test_the_decision_is_its_formula() -> None:
    module, stack = back_end(), layers()
    selected = torch.zeros(2, 7, 16)
    for number in range(5):
        gate = torch.sigmoid(stack[:, number].mean(dim=1) @ module.fc0.weight[0] + module.fc0.bias)
        selected += gate.view(2, 1, 1) * stack[:, number]
    image = torch.selu(module.first_bn(selected.unsqueeze(1)))[:, 0]
    pooled = image[:, :6, :15].unfold(1, 3, 3).unfold(2, 3, 3).amax(dim=(3, 4)).flatten(start_dim=1)
    embedding = torch.selu(module.fc1(pooled))
    output = module(stack)
    torch.testing.assert_close(output.embedding, embedding)
    torch.testing.assert_close(output.log_probabilities, torch.selu(module.fc3(embedding)).log_softmax(dim=1))


def test_a_gate_is_a_share_of_its_own_layer_alone() -> None:
    module, stack = back_end(), layers()
    gates = module.gates(stack)
    assert gates.shape == (2, 5)
    assert bool(((gates > 0) & (gates < 1)).all())
    changed = stack.clone()
    changed[:, 3] += 1
    assert torch.equal((module.gates(changed) != gates).any(dim=0), torch.tensor([False, False, False, True, False]))


@pytest.mark.parametrize(("samples", "frames"), [(64_600, 201), (66_800, 208), (64_000, 199), (400, 1), (399, 0)])
def test_the_frames_of_a_waveform_are_counted_as_the_front_end_makes_them(samples: int, frames: int) -> None:
    front_end = rebuild_front_end(COMPACT_CONFIG).eval()
    assert front_end.frame_count(samples) == frames
    if frames:
        with torch.inference_mode():
            assert front_end(noise(samples)).shape[2] == frames


def test_a_longer_waveform_is_cut_and_a_shorter_one_repeated() -> None:
    found = detector("sls").eval()
    assert isinstance(found, Sls)
    long, short = noise(70_000), noise(40_000)
    with torch.inference_mode():
        assert torch.equal(found(long), found(long[:, :64_600]))
        assert torch.equal(found(short), found(torch.cat([short, short[:, :24_600]], dim=1)))
    assert torch.equal(fitted(long, 64_600), long[:, :64_600])


def test_ssl_mean_is_linear_in_the_mean_of_all_layers_and_frames() -> None:
    found = detector("ssl_mean").eval()
    assert isinstance(found, SslMean)
    stack = found.front_end(noise())
    mean = sum(stack[:, layer, frame] for layer in range(6) for frame in range(12)) / (6 * 12)
    assert isinstance(mean, torch.Tensor)
    output = found.analyse(noise())
    torch.testing.assert_close(output.embedding, mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.log_probabilities, found.back_end(mean).log_softmax(dim=1), atol=1e-5, rtol=1e-4)
    assert sum(parameter.numel() for parameter in found.back_end.parameters()) == 2 * 48 + 2


@pytest.mark.parametrize("model_type", ["sls", "ssl_mean"])
def test_a_frozen_front_end_gets_no_gradient_and_the_rest_does(model_type: str) -> None:
    found = detector(model_type, freeze_ssl=True).train()
    found(noise())[:, 1].sum().backward()
    back: nn.Module = found.get_submodule("back_end")
    assert all(parameter.grad is not None for parameter in back.parameters())
    assert all(p.grad is None and not p.requires_grad for p in found.get_submodule("front_end").parameters())
