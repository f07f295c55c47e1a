"""Batch norm: right against float64 at the sizes that training has, in either layout, on any number of threads."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.batch_norm import BatchNorm1d, BatchNorm2d
from models.build import create_detector
from models.detector import Detector, DetectorSettings
from models.names import DETECTOR_TYPES, FRONT_END_TYPES

GRADIENT_TOLERANCE = 2e-6
"""What torch's own makes of contiguous maps is not further off, at these sizes."""
STATISTICS_TOLERANCE = 1e-6


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def maps(batch: int, channels: int, height: int, width: int) -> Tensor:
    """Return contiguous maps whose channels differ in mean and variance; the last mean is 30 deviations."""
    drawn = torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))
    deviations = torch.linspace(0.5, 2, channels).view(-1, 1, 1)
    means = torch.linspace(-1, 1, channels).view(-1, 1, 1)
    means[-1] = 30 * deviations[-1]
    return drawn.mul_(deviations).add_(means)


def upstream_of(given: Tensor) -> Tensor:
    """Return a gradient whose sums are not the small remains of large numbers, which would be off in any arithmetic."""
    noise = torch.randn(given.shape, generator=torch.Generator().manual_seed(2))
    places = [dimension for dimension in range(given.dim()) if dimension != 1]
    variance, mean = torch.var_mean(given.float(), dim=places, keepdim=True)
    return (
        (noise + 0.3 * (given - mean) / variance.clamp(min=1e-9).sqrt() + 1)
        .to(given.dtype)
        .contiguous(memory_format=_layout(given))
    )


def channels_last(contiguous: Tensor) -> Tensor:
    return contiguous.contiguous(memory_format=torch.channels_last)


def new(channels: int, **settings: Any) -> BatchNorm2d:
    """Return one whose running statistics become those of the batch, with weights and offsets that are not 1 and 0."""
    norm = BatchNorm2d(channels, **{"momentum": 1.0} | settings)
    if norm.affine:
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 1.5, channels))
            norm.bias.copy_(torch.linspace(-1, 1, channels))
    return norm


def passed_through(norm: _BatchNorm, given: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    """Return what a step in training mode leaves behind."""
    given = given.detach().requires_grad_()
    norm.train().zero_grad()
    output = norm(given)
    output.backward(upstream)
    assert given.grad is not None
    found = {"output": output.detach(), "gradient": given.grad}
    found |= {name: buffer.clone() for name, buffer in norm.named_buffers()}
    found |= {f"gradient of {name}": part.grad for name, part in norm.named_parameters() if part.grad is not None}
    return found


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the length of the difference as a share of what is expected."""
    return float((found.double() - expected).norm() / expected.norm())


def distances(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    return {name: distance(one, expected[name]) for name, one in found.items() if one.is_floating_point()}


def test_channels_last_maps_of_the_real_size_are_normalised_as_float64_would() -> None:
    """24 utterances through the first block of AASIST: 23 bands by 21,490 moments, 11,862,480 places a channel; fewer
    channels than its 32, each of which is summed for itself."""
    given = channels_last(maps(24, 2, 23, 21_490))
    upstream, norm = upstream_of(given), new(2)
    expected = passed_through(copy.deepcopy(norm).double(), given.double(), upstream.double())
    found = passed_through(norm, given, upstream)
    off = distances(found, expected)
    assert max(off["running_mean"], off["running_var"]) < STATISTICS_TOLERANCE, off
    assert max(off.values()) < GRADIENT_TOLERANCE, off
    assert all(found[name].is_contiguous(memory_format=torch.channels_last) for name in ("output", "gradient"))


@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"momentum": 0.1}, {"momentum": None}])
def test_both_layouts_give_the_same_to_rounding(settings: dict[str, Any]) -> None:
    """Two steps: the running statistics of the second depend on those of the first. The places fill no whole block."""
    given = maps(5, 6, 7, 331)
    upstream = upstream_of(given)
    contiguous, last = new(6, **settings), new(6, **settings)
    for _ in range(2):
        expected = passed_through(contiguous, given, upstream)
        found = passed_through(last, channels_last(given), channels_last(upstream))
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=2e-5)


def test_one_thread_and_two_give_the_same_bits() -> None:
    given = channels_last(maps(4, 32, 23, 1000))
    upstream = upstream_of(given)
    by_threads = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        by_threads.append(passed_through(new(32), given, upstream))
    assert [name for name, one in by_threads[0].items() if not torch.equal(one, by_threads[1][name])] == []


def test_bfloat16_maps_are_summed_as_float64_would() -> None:
    given = channels_last(maps(4, 8, 23, 2000).bfloat16())
    upstream, norm = upstream_of(given), new(8)
    expected = passed_through(copy.deepcopy(norm).double(), given.double(), upstream.double())
    found = passed_through(norm, given, upstream)
    for name in ("running_mean", "running_var", "gradient of weight", "gradient of bias"):
        assert distance(found[name], expected[name]) < GRADIENT_TOLERANCE, name
    assert found["output"].dtype == found["gradient"].dtype == torch.bfloat16
    assert distance(found["gradient"], expected["gradient"]) < 5e-3


def test_evaluation_mode_is_torchs_own_to_the_bit() -> None:
    norm = new(4).eval()
    theirs = nn.BatchNorm2d(4).eval()
    theirs.load_state_dict(norm.state_dict(), strict=True)
    given = channels_last(maps(2, 4, 5, 6))
    assert torch.equal(norm(given), theirs(given))


def detector(model_type: str) -> Detector:
    torch.manual_seed(1)
    ssl_model = "compact" if model_type in FRONT_END_TYPES else ""
    return create_detector(DetectorSettings(model_type=model_type, ssl_model=ssl_model))


@pytest.mark.parametrize("model_type", DETECTOR_TYPES)
def test_every_detector_takes_its_batch_norm_from_one_file(model_type: str) -> None:
    norms = [part for part in detector(model_type).modules() if isinstance(part, _BatchNorm)]
    assert [norm for norm in norms if not isinstance(norm, BatchNorm1d | BatchNorm2d)] == []
    assert bool(norms) == (model_type not in ("g3_heatmap", "ssl_mean", "spectrogram_swin"))


@pytest.mark.parametrize("model_type", ["aasist", "aasist_l", "lcnn", "sls", "spectrogram_resnet18"])
def test_the_first_and_the_widest_norm_of_a_detector_are_right_on_what_it_gives_them(model_type: str) -> None:
    """On maps that the detector itself makes of 64,600 samples, in their layout; each against float64."""
    found = detector(model_type).train()
    seen: dict[str, tuple[_BatchNorm, Tensor]] = {}

    def keep(name: str, norm: _BatchNorm) -> Any:
        def hook(_module: nn.Module, arguments: tuple[Tensor]) -> None:
            seen[name] = (norm, arguments[0].detach().clone())

        return hook

    for name, part in found.named_modules():
        if isinstance(part, _BatchNorm):
            part.register_forward_pre_hook(keep(name, part))
    with torch.no_grad():
        found(torch.randn(2, 64_600, generator=torch.Generator().manual_seed(1)) / 10)
    first, widest = next(iter(seen)), max(seen, key=lambda name: seen[name][1].numel())
    for name in {first, widest}:
        norm, given = copy.deepcopy(seen[name][0]), seen[name][1]
        norm._forward_pre_hooks.clear()
        norm.momentum = 1.0
        upstream = upstream_of(given)
        expected = passed_through(copy.deepcopy(norm).double(), given.double(), upstream.double())
        off = distances(passed_through(norm, given, upstream), expected)
        assert max(off["running_mean"], off["running_var"]) < STATISTICS_TOLERANCE, (name, off)
        assert max(off.values()) < GRADIENT_TOLERANCE, (name, off)


def _layout(given: Tensor) -> torch.memory_format:
    is_last = given.dim() == 4 and given.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last and not given.is_contiguous() else torch.contiguous_format
