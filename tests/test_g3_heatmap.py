"""The hierarchical back-end: its published size, what is padding, what is prior, and that it trains."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from models.attention_pooling import AttentionPooling, centre_bias, temporal_prior
from models.build import create_detector
from models.detector import AttentionWeights, Detector, DetectorSettings
from models.g3_heatmap import HierarchicalBackEnd, ResidualRefinement
from training.tasks.losses import weighted_cross_entropy

XLS_R_WIDTH = 1024


def size(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def back_end(group_size: int = 3, temporal_bias: str = "centre") -> HierarchicalBackEnd:
    torch.manual_seed(0)
    return HierarchicalBackEnd(16, group_size, use_contrastive=True, temporal_bias=temporal_bias)


def layers(layer_count: int = 7, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, layer_count, 5, 16, generator=torch.Generator().manual_seed(1))


def attention_of(module: HierarchicalBackEnd, stack: torch.Tensor) -> AttentionWeights:
    attention = module(stack).attention
    assert isinstance(attention, AttentionWeights)
    return attention


@pytest.fixture
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("temporal_pooling", 131_328),
        ("intra_pooling", 131_328),
        ("inter_pooling", 131_328),
        ("group_refinement", 1_052_160),
        ("utterance_refinement", 1_052_160),
        ("projection", 658_176),
        ("classifier", 265_474),
    ],
)
def test_every_part_has_the_published_number_of_parameters(part: str, expected: int) -> None:
    with torch.device("meta"):
        module = HierarchicalBackEnd(XLS_R_WIDTH, 3, use_contrastive=True, temporal_bias="centre")
    assert size(module.get_submodule(part)) == expected


@pytest.mark.parametrize(("use_contrastive", "expected"), [(True, 3_421_954), (False, 2_763_778)])
def test_the_back_end_has_the_published_number_of_parameters(use_contrastive: bool, expected: int) -> None:
    with torch.device("meta"):
        module = HierarchicalBackEnd(XLS_R_WIDTH, 3, use_contrastive, temporal_bias="centre")
    assert size(module) == expected


def test_the_shapes_at_xls_r_size_are_the_published_ones() -> None:
    with torch.device("meta"):
        module = HierarchicalBackEnd(XLS_R_WIDTH, 3, use_contrastive=True, temporal_bias="centre")
        output = module(torch.empty(2, 24, 201, XLS_R_WIDTH))
    assert output.attention is not None
    assert output.attention.temporal.shape == (2, 24, 201)
    assert output.attention.intra.shape == (2, 8, 3)
    assert output.attention.inter.shape == (2, 8)
    assert (output.log_probabilities.shape, output.embedding.shape) == ((2, 2), (2, XLS_R_WIDTH))
    assert output.projection.shape == (2, 256)


@pytest.mark.parametrize("group_size", [1, 2, 3, 7])
def test_all_weights_and_importances_sum_to_one(group_size: int) -> None:
    attention = attention_of(back_end(group_size), layers())
    importances = [attention.layer_importance(), attention.time_importance()]
    for weights in [attention.temporal, attention.intra, attention.inter, *importances]:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_padded_places_of_the_last_group_get_exactly_no_attention() -> None:
    attention = attention_of(back_end(group_size=3), layers(layer_count=7))
    assert attention.intra.shape == (2, 3, 3)
    assert torch.equal(attention.intra[:, 2], torch.tensor([[1.0, 0.0, 0.0]]).expand(2, -1))
    assert attention.layer_importance().shape == (2, 7)


def test_padding_changes_no_gradient_to_nan() -> None:
    module = back_end(group_size=3)
    module(layers(layer_count=7)).log_probabilities.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in module.parameters())


def test_an_utterance_does_not_depend_on_its_batch() -> None:
    module, stack = back_end().eval(), layers(batch=3)
    together, alone = module(stack).log_probabilities[1:2], module(stack[1:2]).log_probabilities
    torch.testing.assert_close(together, alone)


def test_probabilities_sum_to_one_and_projections_have_length_one() -> None:
    output = back_end()(layers())
    torch.testing.assert_close(output.log_probabilities.exp().sum(dim=1), torch.ones(2))
    torch.testing.assert_close(output.projection.norm(dim=1), torch.ones(2))


def test_without_contrastive_training_there_is_no_projection() -> None:
    module = HierarchicalBackEnd(16, 3, use_contrastive=False, temporal_bias="none")
    assert module(layers()).projection is None


def test_the_embedding_is_clamped_in_training_only() -> None:
    module, stack = back_end(), 1e4 * layers()
    assert module.train()(stack).embedding.abs().max() == 10
    assert module.eval()(stack).embedding.abs().max() > 10


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        ("none", torch.full((5,), 0.2)),
        # 2 (1 - ((t - 2.5) / 2.5)^2) for t = 0..4, by hand
        ("centre", torch.softmax(torch.tensor([0.0, 1.28, 1.92, 1.92, 1.28]), dim=0)),
    ],
)
def test_a_detector_that_learned_nothing_attends_as_the_prior_says(bias: str, expected: torch.Tensor) -> None:
    module = back_end(temporal_bias=bias)
    nn.init.zeros_(module.temporal_pooling.score.weight)
    temporal = attention_of(module, layers()).temporal
    torch.testing.assert_close(temporal, expected.expand_as(temporal))
    torch.testing.assert_close(temporal_prior(bias, 5), expected)


def test_the_centre_prior_alone_puts_almost_half_the_attention_in_the_middle() -> None:
    # 46.4 % between 40 % and 70 % of 201 frames, where even attention would put 30 %.
    prior, places = temporal_prior("centre", 201), torch.arange(201) / 201
    share = prior[(places >= 0.4) & (places < 0.7)].sum().item()
    assert share == pytest.approx(0.464, abs=0.005)
    assert centre_bias(201).exp().max().item() == pytest.approx(7.4, abs=0.05)


def test_pooling_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    pooling, sequence = AttentionPooling(4, attention_width=3), torch.randn(5, 4)
    v, w, b = pooling.score.weight[0], pooling.hidden.weight, pooling.hidden.bias
    weights = torch.softmax(torch.stack([v @ torch.tanh(w @ place + b) for place in sequence]), dim=0)
    pooled, found = pooling(sequence)
    torch.testing.assert_close(found, weights)
    torch.testing.assert_close(pooled, sum(weight * place for weight, place in zip(weights, sequence, strict=True)))


def test_refinement_of_a_silent_network_changes_nothing() -> None:
    module, vector = ResidualRefinement(8), torch.randn(3, 8)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(module(vector), vector)


def compact_detector(seed: int) -> Detector:
    torch.manual_seed(seed)
    return create_detector(DetectorSettings(ssl_model="compact", use_contrastive=True))


def weights_after_training(detector: Detector) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    waveform, labels = torch.randn(4, 6000), torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.Adam(detector.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        weighted_cross_entropy(detector(waveform), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return detector.state_dict()


@pytest.mark.usefixtures("deterministic")
def test_training_with_one_seed_gives_the_same_bits_twice() -> None:
    first, second = weights_after_training(compact_detector(1)), weights_after_training(compact_detector(1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_detector_can_be_copied_and_trained_on() -> None:
    detector = compact_detector(1)
    detector(torch.randn(2, 4000))
    twin = copy.deepcopy(detector)
    first, second = weights_after_training(detector), weights_after_training(twin)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_trainable_weight_gets_a_gradient() -> None:
    detector = compact_detector(1)
    output = detector.analyse(torch.randn(2, 4000))
    assert output.projection is not None
    (output.log_probabilities[:, 1].sum() + output.projection[:, 0].sum()).backward()  # type: ignore[no-untyped-call]
    without = [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
