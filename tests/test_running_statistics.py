"""Running statistics of batch norm that are set aside and moved later have the bits of those that move at once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.batch_norm import BatchNorm1d, BatchNorm2d
from models.build import create_detector
from models.detector import DetectorSettings
from models.names import DETECTOR_TYPES, FRONT_END_TYPES
from models.running_statistics import SetAsideStatistics, Statistics

LAYOUTS = {
    "maps": lambda drawn: drawn,
    "maps with channels last": lambda drawn: drawn.contiguous(memory_format=torch.channels_last),
    "maps in bfloat16": lambda drawn: drawn.bfloat16(),
    "channels last in bfloat16": lambda drawn: drawn.bfloat16().contiguous(memory_format=torch.channels_last),
}


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [3 * torch.randn(size, 32, 5, 7, generator=generator) + 1 for size in (6, 6, 1, 3)]


@pytest.mark.parametrize("momentum", [0.1, 0.3, 1 / 7, 1.0, None])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_moving_later_gives_the_bits_of_moving_at_once(layout: str, momentum: float | None) -> None:
    at_once, later = BatchNorm2d(32, momentum=momentum), BatchNorm2d(32, momentum=momentum)
    statistics = Statistics([later])
    found = []
    with statistics.set_aside():
        for drawn in batches():
            given = LAYOUTS[layout](drawn)
            assert torch.equal(at_once(given), later(given))
            found.append(statistics.taken())
        assert not later.running_mean.any()  # type: ignore[union-attr]
    for of_batch in found:
        statistics.move(of_batch)
    for name, buffer in at_once.named_buffers():
        assert torch.equal(buffer, later.get_buffer(name)), name


def test_vectors_too_and_a_norm_that_is_called_twice_or_not_at_all() -> None:
    at_once = nn.ModuleList([BatchNorm1d(8), BatchNorm1d(4, affine=False), BatchNorm1d(8)])
    later = copy.deepcopy(at_once)
    statistics = Statistics([later])
    generator = torch.Generator().manual_seed(5)
    calls = [torch.randn(9, 8, generator=generator) for _ in range(4)]
    with statistics.set_aside():
        for given in calls[:2]:
            later[0](given)
        first = statistics.taken()
        for given in calls[2:]:
            later[0](given)
        second = statistics.taken()
    statistics.move(first)
    statistics.move(second)
    for given in calls:
        at_once[0](given)
    for name, buffer in at_once.named_buffers():
        assert torch.equal(buffer, later.get_buffer(name)), name


def test_evaluation_sets_nothing_aside() -> None:
    norm = BatchNorm1d(8).eval()
    statistics = Statistics([norm])
    with statistics.set_aside():
        norm(torch.ones(2, 8))
        assert statistics.taken().numbers.numel() == 0


@pytest.mark.parametrize("model_type", DETECTOR_TYPES)
def test_no_detector_has_a_batch_norm_that_moves_at_once(model_type: str) -> None:
    with torch.device("meta"):
        detector = create_detector(
            DetectorSettings(model_type=model_type, ssl_model="compact" * (model_type in FRONT_END_TYPES))
        )
    norms = [module for module in detector.modules() if isinstance(module, _BatchNorm)]
    assert all(isinstance(module, SetAsideStatistics) for module in norms)
