"""The losses: values worked by hand, batches without partners, and gradients that really flow."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from models.build import create_detector
from models.detector import DetectorSettings
from training.tasks.losses import (
    contrastive_terms,
    cross_entropy,
    focal,
    infonce_loss,
    make_loss,
    margin_contrastive_loss,
    oc_softmax,
    supervised_contrastive_loss,
    weighted_cross_entropy,
)

SPOOF_ONLY = torch.tensor([0, 0, 0, 0])


def random_log_probabilities(batch: int) -> torch.Tensor:
    return F.log_softmax(torch.randn(batch, 2, generator=torch.Generator().manual_seed(3)), dim=1)


def test_cross_entropy_is_that_of_torch_with_class_weights() -> None:
    log_probabilities, labels = random_log_probabilities(9), torch.tensor([0, 0, 1, 0, 0, 0, 0, 1, 0])
    expected = F.nll_loss(log_probabilities, labels, weight=torch.tensor([0.1, 0.9]))
    torch.testing.assert_close(weighted_cross_entropy(log_probabilities, labels), expected)


def test_cross_entropy_by_hand() -> None:
    log_probabilities = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log()
    # (0.1 * -log 0.8 + 0.9 * -log 0.5) / (0.1 + 0.9)
    expected = 0.1 * -math.log(0.8) + 0.9 * -math.log(0.5)
    assert weighted_cross_entropy(log_probabilities, torch.tensor([0, 1])).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["CCE", "focal", "oc_softmax"])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_a_validation_loss_does_not_depend_on_the_batch_size(batch_size: int, name: str) -> None:
    log_probabilities, labels = random_log_probabilities(9), torch.tensor([0, 0, 1, 0, 0, 0, 0, 1, 0])
    loss = make_loss(name, (0.1, 0.9), 2.0)
    numerator, denominator = torch.zeros(()), torch.zeros(())
    for start in range(0, 9, batch_size):
        batch = slice(start, start + batch_size)
        numerator = numerator + loss.terms(log_probabilities[batch], labels[batch]).sum()
        denominator = denominator + loss.weights(labels[batch]).sum()
    torch.testing.assert_close(numerator / denominator, loss.mean(log_probabilities, labels))


@pytest.mark.parametrize("name", ["CCE", "focal", "oc_softmax"])
def test_class_weights_weigh_the_classes(name: str) -> None:
    log_probabilities, labels = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log(), torch.tensor([0, 1])
    spoof, bona_fide = make_loss(name, (1.0, 1.0), 2.0).of_utterance(log_probabilities, labels).tolist()
    found = make_loss(name, (3.0, 1.0), 2.0).mean(log_probabilities, labels).item()
    assert found == pytest.approx((3 * spoof + bona_fide) / 4)


def test_focal_by_hand() -> None:
    log_probabilities, labels = torch.tensor([[0.8, 0.2], [0.25, 0.75]]).log(), torch.tensor([1, 1])
    expected = [0.8**2 * -math.log(0.2), 0.25**2 * -math.log(0.75)]
    assert focal(log_probabilities, labels, gamma=2.0).tolist() == pytest.approx(expected)
    expected = [0.8**0.5 * -math.log(0.2), 0.25**0.5 * -math.log(0.75)]
    assert focal(log_probabilities, labels, gamma=0.5).tolist() == pytest.approx(expected)


def test_focal_with_gamma_0_is_the_cross_entropy() -> None:
    log_probabilities, labels = random_log_probabilities(9), torch.tensor([0, 0, 1, 0, 0, 0, 0, 1, 0])
    assert torch.equal(focal(log_probabilities, labels, gamma=0.0), cross_entropy(log_probabilities, labels))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("logit", [0.0, 30.0, 200.0, -200.0])
def test_focal_has_a_finite_gradient_however_sure_the_detector_is(logit: float, gamma: float) -> None:
    logits = torch.tensor([[-logit, logit]], requires_grad=True)
    value = focal(logits.log_softmax(dim=1), torch.tensor([1]), gamma).sum()
    value.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert 0 <= value.item() < math.inf


@pytest.mark.parametrize(
    ("cosine", "label", "expected"),
    [
        (0.9, 1, math.log(2)),  # at its margin: log(1 + e^0)
        (0.2, 0, math.log(2)),
        (1.0, 1, math.log1p(math.exp(-2))),
        (0.0, 0, math.log1p(math.exp(-4))),
        (0.2, 1, math.log1p(math.exp(14))),  # 20 (0.9 - 0.2)
        (0.9, 0, math.log1p(math.exp(14))),
        (-1.0, 1, 38.0),
    ],
)
def test_oc_softmax_by_hand(cosine: float, label: int, expected: float) -> None:
    log_odds = torch.tensor(20 * (cosine - 0.55))
    log_probabilities = F.logsigmoid(torch.stack([-log_odds, log_odds])).unsqueeze(0)
    assert oc_softmax(log_probabilities, torch.tensor([label])).item() == pytest.approx(expected, abs=1e-5)


def test_margin_loss_by_hand() -> None:
    # Two bona fide utterances in one direction, one spoof at a right angle to them. Each bona fide anchor: own 1, other
    # 0, max(0, 0.5 + 0 - 1) = 0. The spoof one has no partner of its class and is skipped.
    embedding = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    assert margin_contrastive_loss(embedding, torch.tensor([1, 1, 0])).item() == pytest.approx(0.0)
    # The spoof one moved onto them: own 1, other 1, so each anchor costs the margin.
    embedding = torch.tensor([[2.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    assert margin_contrastive_loss(embedding, torch.tensor([1, 1, 0])).item() == pytest.approx(0.5)
    # Own class at a right angle, the other class averaging (1 + 0) / 2 for each anchor: 0.5 + 0.5 - 0.
    embedding = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert margin_contrastive_loss(embedding, torch.tensor([1, 1, 0, 0])).item() == pytest.approx(1.0)


def test_supervised_contrastive_loss_by_hand() -> None:
    # Two bona fide in one direction and a spoof at a right angle, T = 1: each anchor costs -log(e / (e + 1)).
    projection = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = supervised_contrastive_loss(projection, torch.tensor([1, 1, 0]), temperature=1.0)
    assert found.item() == pytest.approx(-math.log(math.e / (math.e + 1)))


def test_supervised_contrastive_loss_is_the_formula_of_khosla() -> None:
    z = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(2)), dim=1)
    labels, total = [0, 0, 0, 1, 1, 0], 0.0
    for i in range(6):
        partners = [p for p in range(6) if p != i and labels[p] == labels[i]]
        shares = [math.exp(float(z[i] @ z[a]) / 0.1) if a != i else 0.0 for a in range(6)]
        total += sum(-math.log(shares[p] / sum(shares)) for p in partners) / len(partners) / 6
    assert supervised_contrastive_loss(z, torch.tensor(labels)).item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "labels", "reason"),
    [
        (margin_contrastive_loss, SPOOF_ONLY, "nobody has a partner in the other class"),
        (margin_contrastive_loss, torch.tensor([0, 1]), "nobody has a partner in the own class"),
        (margin_contrastive_loss, torch.tensor([1]), "nobody has a partner"),
        (supervised_contrastive_loss, torch.tensor([0, 1]), "nobody has a partner in the own class"),
        (supervised_contrastive_loss, torch.tensor([1]), "nobody has a partner"),
        (infonce_loss, torch.tensor([0, 1]), "there is no pair of one class"),
        (infonce_loss, torch.tensor([1]), "nobody has a partner"),
    ],
)
def test_a_batch_without_anchors_costs_exactly_zero_and_trains_nothing(loss, labels, reason) -> None:  # type: ignore[no-untyped-def]
    vectors = torch.randn(len(labels), 4, requires_grad=True)
    value = loss(vectors, labels)
    value.backward()
    assert value.item() == 0, reason
    assert vectors.grad is not None
    assert torch.equal(vectors.grad, torch.zeros_like(vectors)), reason


def test_an_anchor_without_partners_leaves_the_others_as_they_are() -> None:
    projection = F.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(2)), dim=1)
    found = supervised_contrastive_loss(projection, torch.tensor([0, 0, 1]))
    similarity = (projection @ projection.T / 0.1).exp()
    first = -torch.log(similarity[0, 1] / (similarity[0, 1] + similarity[0, 2]))
    second = -torch.log(similarity[1, 0] / (similarity[1, 0] + similarity[1, 2]))
    torch.testing.assert_close(found, (first + second) / 2)


def test_infonce_by_hand() -> None:
    # T = 1. The one pair of a class: 1. Each bona fide one has log(e^0) = 0, the spoof one log(e^0 + e^0) = log 2.
    projection = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = infonce_loss(projection, torch.tensor([1, 1, 0]), temperature=1.0)
    assert found.item() == pytest.approx(math.log(2) / 3 - 1)


def test_infonce_is_the_public_formula() -> None:
    """Its terms written out: minus the mean over all pairs, plus the mean over all utterances."""
    z = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(2)), dim=1)
    labels = [0, 0, 0, 1, 0, 0]  # the bona fide one has no partner, and counts in the second mean all the same
    closeness = [float(z[i] @ z[p]) / 0.1 for i in range(6) for p in range(6) if i != p and labels[i] == labels[p]]
    others = [sum(math.exp(float(z[i] @ z[n]) / 0.1) for n in range(6) if labels[i] != labels[n]) for i in range(6)]
    wanted = sum(map(math.log, others)) / 6 - sum(closeness) / len(closeness)
    assert infonce_loss(z, torch.tensor(labels)).item() == pytest.approx(wanted, rel=1e-5)


def test_with_infonce_an_anchor_without_partners_counts_as_zero() -> None:
    projection = F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(2)), dim=1)
    labels = torch.tensor([0, 0, 1, 0, 0])
    _, counted = contrastive_terms("infonce", projection, projection, labels)
    _, left_out = contrastive_terms("margin", projection, projection, labels)
    torch.testing.assert_close(counted, left_out * 4 / 5)


def test_infonce_of_a_batch_of_one_class_only_draws_it_together() -> None:
    projection = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(2)), dim=1).requires_grad_()
    value = infonce_loss(projection, torch.zeros(4, dtype=torch.int64))
    value.backward()  # type: ignore[no-untyped-call]
    assert projection.grad is not None and bool(projection.grad.isfinite().all())
    assert bool(projection.grad.any())


@pytest.mark.parametrize("loss", [margin_contrastive_loss, supervised_contrastive_loss, infonce_loss])
def test_a_contrastive_loss_falls_as_classes_move_apart(loss) -> None:  # type: ignore[no-untyped-def]
    labels = torch.tensor([0, 0, 0, 1, 1])
    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(4), requires_grad=True)
    optimizer = torch.optim.SGD([vectors], lr=0.5)
    before = loss(F.normalize(vectors, dim=1), labels).item()
    for _ in range(5):
        optimizer.zero_grad()
        loss(F.normalize(vectors, dim=1), labels).backward()
        optimizer.step()
    assert loss(F.normalize(vectors, dim=1), labels).item() < before


@pytest.mark.parametrize(("contrastive_weight", "supcon_weight"), [(0.1, 0.0), (0.0, 0.1), (0.2, 0.1)])
def test_each_weight_changes_the_loss_and_the_gradient_of_the_front_end(
    contrastive_weight: float, supcon_weight: float
) -> None:
    torch.manual_seed(0)
    detector = create_detector(DetectorSettings(ssl_model="compact", use_contrastive=True)).eval()
    waveform, labels = torch.randn(4, 4000), torch.tensor([0, 1, 0, 1])

    def loss_and_gradient(contrastive: float, supcon: float) -> tuple[float, torch.Tensor]:
        output = detector.analyse(waveform)
        assert output.embedding is not None
        assert output.projection is not None
        total = (
            weighted_cross_entropy(output.log_probabilities, labels)
            + contrastive * margin_contrastive_loss(output.embedding, labels)
            + supcon * supervised_contrastive_loss(output.projection, labels)
        )
        detector.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        first_convolution = next(detector.parameters())
        assert first_convolution.grad is not None
        return total.item(), first_convolution.grad.clone()

    plain, with_terms = loss_and_gradient(0.0, 0.0), loss_and_gradient(contrastive_weight, supcon_weight)
    assert plain[0] != with_terms[0]
    assert not torch.equal(plain[1], with_terms[1])
