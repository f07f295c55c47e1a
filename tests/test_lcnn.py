"""lcnn: its size worked by hand, the greater of two maps, one log-odds as two probabilities, time of any length."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.build import create_detector
from models.detector import Detector, DetectorSettings, scores
from models.lcnn import LAYERS, Lcnn, MaxFeatureMap
from tests.test_aasist import filled_by_formula


def detector() -> Lcnn:
    torch.manual_seed(1)
    made: Detector = create_detector(DetectorSettings(model_type="lcnn", ssl_model=""))
    assert isinstance(made, Lcnn)
    return made.eval()


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def noise(samples: int = 16_000) -> torch.Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(1)) / 10


# (kernel, channels in, channels out) of asvspoof-challenge/2021 LA/Baseline-LFCC-LCNN model.py, in order
PUBLISHED = [(5, 1, 64), (1, 32, 64), (3, 32, 96), (1, 48, 96), (3, 48, 128), (1, 64, 128), (3, 64, 64), (1, 32, 64)]
PUBLISHED += [(3, 32, 64)]


def test_the_convolutions_are_those_of_the_baseline() -> None:
    assert [(shape.kernel, shape.channels, 2 * shape.maps_kept) for shape in LAYERS] == PUBLISHED
    convolutions = sum(kernel**2 * channels * out + out for kernel, channels, out in PUBLISHED)
    assert convolutions == size(detector().convolutions) == 157_504


def test_there_are_as_many_parameters_as_in_the_baseline() -> None:
    one_direction = 4 * 48 * (96 + 48) + 2 * 4 * 48  # torch's LSTM has two offsets for each gate
    found = detector()
    assert size(found.lstm) == 2 * 2 * one_direction == 112_128
    assert size(found) == 157_504 + 112_128 + (96 + 1) == 269_729


def test_of_two_maps_the_greater_is_kept() -> None:
    maps = torch.tensor([1.0, -2.0, 3.0, -1.0]).view(1, 4, 1, 1)
    assert MaxFeatureMap()(maps).flatten().tolist() == [3.0, -1.0]
    maps = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(1), requires_grad=True)
    torch.testing.assert_close(MaxFeatureMap()(maps), torch.maximum(maps[:, :3], maps[:, 3:]))
    (gradient,) = torch.autograd.grad(MaxFeatureMap()(maps).sum(), maps)
    assert torch.equal(gradient[:, :3], (maps[:, :3] > maps[:, 3:]).float())
    assert torch.equal(gradient[:, 3:], (maps[:, :3] < maps[:, 3:]).float())


@pytest.mark.parametrize(("samples", "moments"), [(2400, 1), (64_600, 25), (160_000, 62)])
def test_time_is_halved_four_times_and_may_be_of_any_length(samples: int, moments: int) -> None:
    found = detector()
    maps = found.convolutions(found.features(noise(samples)).unsqueeze(1))
    assert maps.shape == (2, 32, moments, 3)


def test_the_embedding_is_the_mean_over_time_of_lstm_and_shortcut() -> None:
    found = detector()
    maps = found.convolutions(found.features(noise()).unsqueeze(1))
    moments = torch.stack([torch.cat([maps[:, m, t] for m in range(32)], dim=1) for t in range(maps.shape[2])], dim=1)
    expected = (found.lstm(moments)[0] + moments).mean(dim=1)
    output = found.analyse(noise())
    torch.testing.assert_close(output.embedding, expected)
    torch.testing.assert_close(scores(output.log_probabilities), found.output(expected).squeeze(1))


def test_the_numbers_are_those_of_the_first_day() -> None:
    """Computed once with this code, when it gave the published log-odds, 20.1775 and 20.2573 for noise, of the weights
    in nii-yamagishilab/project-NN-Pytorch-scripts project/04-asvspoof2021-toy to all of these digits."""
    time = torch.arange(8000, dtype=torch.float64)
    waveform = (0.3 * torch.sin(time**1.5 / 100)).float().unsqueeze(0)
    with torch.inference_mode():
        embedding = filled_by_formula("lcnn").analyse(waveform).embedding
    assert embedding is not None
    torch.testing.assert_close(
        embedding[0, ::24], torch.tensor([268.09647, 271.56204, 286.69379, 278.422]), atol=0, rtol=2e-4
    )
