"""What holds for every --model_type: probabilities, lengths, gradients, the same bits twice, rebuilt and resumed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from models.build import create_detector, rebuild_detector
from models.detector import Detector, DetectorSettings
from models.names import DETECTOR_TYPES, FRONT_END_TYPES
from models.precision import autocast, log_odds
from training.tasks.losses import weighted_cross_entropy

# The fewest samples that each is documented to take.
SHORTEST = {
    "g3_heatmap": 400,
    "sls": 1,
    "ssl_mean": 400,
    "aasist": 2315,
    "aasist_l": 2315,
    "lcnn": 2400,
    "spectrogram_resnet18": 480,
    "spectrogram_swin": 480,
}
LABELS = torch.tensor([0, 1, 0, 1])


def settings(model_type: str) -> DetectorSettings:
    return DetectorSettings(model_type=model_type, ssl_model="compact" if model_type in FRONT_END_TYPES else "")


def detector(model_type: str, seed: int = 1) -> Detector:
    torch.manual_seed(seed)
    return create_detector(settings(model_type))


def noise(batch: int = 4, samples: int = 4000) -> torch.Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(1)) / 10


@pytest.fixture
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def train(trained: Detector, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        weighted_cross_entropy(trained.train()(noise()), LABELS).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def adam(trained: Detector) -> torch.optim.Adam:
    return torch.optim.Adam(trained.parameters(), lr=1e-3, weight_decay=1e-4)


def test_every_detector_is_tried() -> None:
    assert tuple(SHORTEST) == DETECTOR_TYPES


@pytest.mark.parametrize("model_type", DETECTOR_TYPES)
def test_the_shortest_waveform_the_usual_one_and_silence_give_probabilities(model_type: str) -> None:
    found = detector(model_type).eval()
    with torch.inference_mode():
        for waveform in (noise(2, SHORTEST[model_type]), noise(1, 64_600), torch.zeros(1, 8000)):
            output = found.analyse(waveform)
            assert output.log_probabilities.shape == (len(waveform), 2)
            torch.testing.assert_close(output.log_probabilities.exp().sum(dim=1), torch.ones(len(waveform)))
            assert output.embedding is not None
            assert output.embedding.shape == (len(waveform), found.embedding_width)


@pytest.mark.parametrize("model_type", DETECTOR_TYPES)
def test_an_utterance_does_not_depend_on_its_batch(model_type: str) -> None:
    found = detector(model_type).eval()
    with torch.inference_mode():
        torch.testing.assert_close(found(noise())[1:2], found(noise()[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model_type", DETECTOR_TYPES)
def test_every_trainable_weight_gets_a_gradient(model_type: str) -> None:
    found = detector(model_type).train()
    weighted_cross_entropy(found(noise()), LABELS).backward()  # type: ignore[no-untyped-call]
    without = [name for name, weight in found.named_parameters() if weight.requires_grad and weight.grad is None]
    assert without == []
    assert all(bool(weight.grad.isfinite().all()) for weight in found.parameters() if weight.grad is not None)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("model_type", DETECTOR_TYPES)
def test_two_steps_are_a_step_and_after_a_restart_another_bit_for_bit(model_type: str) -> None:
    """Weights, statistics of batches and moments of Adam go through a state dict into a detector rebuilt from plain
    values, and nothing else does."""
    undisturbed = detector(model_type)
    begun = copy.deepcopy(undisturbed)
    train(undisturbed, adam(undisturbed), range(2))
    optimizer = adam(begun)
    train(begun, optimizer, range(1))
    resumed = rebuild_detector(settings(model_type), begun.front_end_config)
    resumed.load_state_dict(begun.state_dict(), strict=True)
    new_optimizer = adam(resumed)
    new_optimizer.load_state_dict(optimizer.state_dict())
    train(resumed, new_optimizer, range(1, 2))
    expected, found = undisturbed.state_dict(), resumed.state_dict()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    with torch.inference_mode():
        assert torch.equal(resumed.eval()(noise()), undisturbed.eval()(noise()))


@pytest.mark.parametrize("one_class", [False, True])
@pytest.mark.parametrize("model_type", DETECTOR_TYPES)
def test_in_bfloat16_every_utterance_has_a_score_of_its_own(model_type: str, one_class: bool) -> None:
    """Where the last layers ran in bfloat16, 584 utterances of real speech had 5 different scores."""
    torch.manual_seed(1)
    found = create_detector(replace(settings(model_type), one_class=one_class)).eval()
    waveforms = noise(32, 8000) * torch.logspace(-1, 1, 32).unsqueeze(1)
    with torch.inference_mode(), autocast(torch.device("cpu"), "bf16"):
        output = found.analyse(waveforms)
    assert output.log_probabilities.dtype == torch.float32
    assert len(set(log_odds(output).tolist())) == 32


@pytest.mark.parametrize("model_type", DETECTOR_TYPES)
def test_training_in_bfloat16_gives_finite_numbers(model_type: str) -> None:
    """Half a second. On less than 5,120 samples a convolution of ResNet-18 is NaN now and then on processors with AMX:
    oneDNN 3.12 reads memory there that nobody wrote (training takes 64,600 samples, where it does not)."""
    found = detector(model_type).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = weighted_cross_entropy(found(noise(samples=8000)), LABELS)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert all(bool(weight.grad.isfinite().all()) for weight in found.parameters() if weight.grad is not None)
