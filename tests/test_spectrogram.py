"""spectrogram_resnet18 and spectrogram_swin: sizes from the published ones, what they see, safe to train on a GPU."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import ResNet18_Weights, Swin_T_Weights

from models.build import create_detector
from models.detector import DetectorSettings
from models.spectrogram import SpectrogramDetector
from training.checkpoints.weights import Weights, load_into
from utils.errors import UserError

TYPES = ("spectrogram_resnet18", "spectrogram_swin")


def detector(model_type: str) -> SpectrogramDetector:
    torch.manual_seed(1)
    made = create_detector(DetectorSettings(model_type=model_type, ssl_model=""))
    assert isinstance(made, SpectrogramDetector)
    return made


def noise(samples: int = 4000) -> torch.Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(1)) / 10


# A last layer of 1,000 classes goes and one of 2 comes; two of three channels of the first convolution go.
@pytest.mark.parametrize(
    ("model_type", "published", "width", "first_weights", "expected"),
    [
        ("spectrogram_resnet18", ResNet18_Weights.IMAGENET1K_V1, 512, 64 * 7 * 7, 11_171_266),
        ("spectrogram_swin", Swin_T_Weights.IMAGENET1K_V1, 768, 96 * 4 * 4, 27_517_820),
    ],
)
def test_the_size_is_the_published_one_but_for_the_ends(
    model_type: str, published: Any, width: int, first_weights: int, expected: int
) -> None:
    found = sum(parameter.numel() for parameter in detector(model_type).parameters())
    whole = published.meta["num_params"]
    assert whole == {"spectrogram_resnet18": 11_689_512, "spectrogram_swin": 28_288_354}[model_type]
    assert found == whole - (width + 1) * 1000 + (width + 1) * 2 - 2 * first_weights == expected


@pytest.mark.parametrize(("model_type", "width"), [("spectrogram_resnet18", 512), ("spectrogram_swin", 768)])
def test_the_embedding_is_what_the_network_gives(model_type: str, width: int) -> None:
    output = detector(model_type).eval().analyse(noise())
    assert output.embedding is not None
    assert (output.embedding.shape, output.projection, output.attention) == ((2, width), None, None)


@pytest.mark.parametrize("model_type", TYPES)
def test_the_level_of_an_utterance_does_not_count(model_type: str) -> None:
    found = detector(model_type).eval()
    with torch.inference_mode():
        torch.testing.assert_close(found(noise() * 3), found(noise()), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("model_type", TYPES)
def test_no_gradient_runs_through_adaptive_pooling(model_type: str) -> None:
    """Whose gradient has no deterministic implementation on CUDA: torch takes a plain mean where one place is left."""
    todo = deque([detector(model_type).train()(noise()).sum().grad_fn])
    seen = set()
    while todo:
        node = todo.popleft()
        if node is not None and node not in seen:
            seen.add(node)
            todo.extend(following for following, _ in node.next_functions)
    names = {node.name() for node in seen}
    assert {name for name in names if "Adaptive" in name or "Pool3" in name} == set()
    assert any("Convolution" in name for name in names)


def test_weights_for_photographs_are_refused() -> None:
    found = detector("spectrogram_resnet18")
    photographs = {
        "conv1.weight": torch.zeros(64, 3, 7, 7),
        "fc.weight": torch.zeros(1000, 512),
        "fc.bias": torch.zeros(1000),
    }
    with pytest.raises(UserError, match=r"resnet18\.pth does not fit this detector"):
        load_into(found, Weights(Path("resnet18.pth"), photographs, {}))
