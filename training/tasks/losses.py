"""What training minimises: a loss chosen by name, and two contrastive terms that pull utterances of a class together.

Labels are (batch,) integers, 0 for spoof and 1 for bona fide. Every loss is a mean over utterances with class weights,
and is computed from log-probabilities, so that validation can add it up over batches whatever their size.

In the contrastive terms, with bona fide utterances rare, many batches hold one or none: an utterance without the
partners a term needs is left out of it, and a batch without any gives exactly zero, still part of the graph. With
--contrastive infonce such utterances count as the public code counts them instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from models.detector import BONA_FIDE, SPOOF, scores
from models.one_class import BONA_FIDE_MARGIN, SCALE, SPOOF_MARGIN
from training.settings.recipe import CLASS_WEIGHTS, ONE_CLASS_LOSS

MARGIN = 0.5
TEMPERATURE = 0.1
_HALF_GAP = SCALE * (BONA_FIDE_MARGIN - SPOOF_MARGIN) / 2


def cross_entropy(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood of each utterance in nats, (batch,)."""
    is_bona_fide = labels == BONA_FIDE
    return -torch.where(is_bona_fide, log_probabilities[:, BONA_FIDE], log_probabilities[:, SPOOF])


def focal(log_probabilities: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Return -(1 - p)^gamma log p for each utterance, p being the probability of its class; (batch,), in nats.

    What is easy counts less, the more so the larger `gamma`; with 0 this is the cross-entropy. Source: Lin et al. 2017,
    arXiv 1708.02002, eq. 5, whose alpha is the class weight here.

    >>> even = torch.tensor([[0.25, 0.75]]).log()
    >>> focal(even, torch.tensor([1]), gamma=2.0)  # 0.25^2 * -log 0.75
    tensor([0.0180])
    """
    nats = cross_entropy(log_probabilities, labels)
    missed = -torch.expm1(-nats)  # 1 - p without cancellation
    return missed.clamp(min=torch.finfo(nats.dtype).tiny) ** gamma * nats  # below 1 the power has no slope at 0


def oc_softmax(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the one-class softmax loss of each utterance, (batch,).

    That is log(1 + exp(20 (0.9 - c))) for bona fide and log(1 + exp(20 (c - 0.2))) for spoof, c being the cosine of the
    embedding and the learned centre. The log-odds of a `OneClassDetector` are 20 (c - 0.55), so both are
    log(1 + exp(7 - z)), z being the log-odds of the right class. Source: Zhang, Jiang and Duan 2021, arXiv 2010.13995,
    its margins m_0 = 0.9 and m_1 = 0.2 and its alpha = 20.

    >>> even = torch.tensor([[0.5, 0.5]]).log()
    >>> oc_softmax(even, torch.tensor([1]))  # log(1 + e^7)
    tensor([7.0009])
    """
    log_odds = scores(log_probabilities)
    return F.softplus(_HALF_GAP - torch.where(labels == BONA_FIDE, log_odds, -log_odds))


@dataclass(frozen=True)
class Loss:
    """A mean over utterances: sum of weight times `of_utterance` over sum of weights, the weight being the class's."""

    of_utterance: Callable[[Tensor, Tensor], Tensor]
    spoof_weight: float
    bona_fide_weight: float

    def weights(self, labels: Tensor) -> Tensor:
        """Return the weight of each utterance, (batch,) float32."""
        return torch.where(labels == BONA_FIDE, self.bona_fide_weight, self.spoof_weight)

    def terms(self, log_probabilities: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each utterance times its weight, (batch,).

        The loss of many batches is the sum of all terms over the sum of all weights; a mean of the batches' means would
        depend on the batch size.
        """
        return self.weights(labels) * self.of_utterance(log_probabilities, labels)

    def mean(self, log_probabilities: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted mean over one batch, a scalar; for CCE as torch's NLLLoss with class weights."""
        return self.terms(log_probabilities, labels).sum() / self.weights(labels).sum()


def make_loss(name: str, class_weights: tuple[float, ...], focal_gamma: float) -> Loss:
    """Return the loss of that name (training/settings/recipe.py); `class_weights` are those of spoof and bona fide."""
    spoof_weight, bona_fide_weight = class_weights
    of_utterance: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
        "CCE": cross_entropy,
        "focal": partial(focal, gamma=focal_gamma),
        ONE_CLASS_LOSS: oc_softmax,
    }
    return Loss(of_utterance[name], spoof_weight, bona_fide_weight)


def weighted_cross_entropy(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the published loss, CCE with weights 0.1 for spoof and 0.9 for bona fide, a scalar."""
    return make_loss("CCE", CLASS_WEIGHTS, 0.0).mean(log_probabilities, labels)


def margin_contrastive_loss(embedding: Tensor, labels: Tensor, margin: float = MARGIN) -> Tensor:
    """Return the mean over anchors of max(0, margin + mean cosine to the other class - mean cosine to the own).

    `embedding` (batch, dim). An anchor is an utterance with both kinds of partner in the batch. Source: arXiv
    2602.01032; 0.5 is the margin that its public code declares.
    """
    directions = F.normalize(embedding.float(), dim=1)
    cosines = directions @ directions.T
    own, other = _partners(labels)
    closeness_own = _masked_mean(cosines, own)
    closeness_other = _masked_mean(cosines, other)
    is_anchor = own.any(dim=1) & other.any(dim=1)
    return _masked_mean(F.relu(margin + closeness_other - closeness_own), is_anchor)


def supervised_contrastive_loss(projection: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the supervised contrastive loss of `projection` (batch, dim), whose rows have length 1.

    Mean over the anchors i, the utterances with another of their class, of the mean over these others p of
    -log(exp(z_i.z_p / T) / sum over a != i of exp(z_i.z_a / T)). Source: Khosla et al. 2020, arXiv 2004.11362, eq. 2.
    """
    similarities = projection.float() @ projection.float().T / temperature
    own, other = _partners(labels)
    # The least float instead of minus infinity: a batch of one utterance has no partner, and gives 0 instead of NaN.
    to_others = similarities.masked_fill(~(own | other), torch.finfo(similarities.dtype).min)
    log_shares = similarities - torch.logsumexp(to_others, dim=1, keepdim=True)
    return _masked_mean(-_masked_mean(log_shares, own), own.any(dim=1))


def infonce_loss(projection: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the contrastive loss that the public code of arXiv 2602.01032 has, of `projection` with rows of length 1.

    Minus the mean over all pairs of one class of z_i.z_p / T, plus the mean over all utterances i of the log of the sum
    over the other class of exp(z_i.z_n / T); 0 for a batch without a pair of one class. An utterance of a batch that
    lacks the other class adds 0 to the second mean, where that code adds a constant. Source:
    Nicholas42-hub/SLSforASVspoof-2021-DF at 13d4274, model_g3_heatmap.py, ContrastiveLoss.
    """
    similarities = projection.float() @ projection.float().T / temperature
    own, other = _partners(labels)
    closeness_own = (similarities * own).sum() / own.sum().clamp(min=1)
    # The least float instead of minus infinity, whose gradient is NaN where there is no other class.
    to_other = torch.logsumexp(similarities.masked_fill(~other, torch.finfo(similarities.dtype).min), dim=1)
    closeness_other = (to_other * other.any(dim=1)).mean()
    return (closeness_other - closeness_own) * own.any()


def share_with_partner(labels: Tensor) -> Tensor:
    """Return the share of the utterances that have another of their class in the batch, a scalar.

    The supervised contrastive loss times this is the mean over all utterances in which one without a partner counts as
    0, as in SupConLoss of the code that `infonce_loss` names.
    """
    own, _ = _partners(labels)
    return own.any(dim=1).float().mean()


def contrastive_terms(kind: str, embedding: Tensor, projection: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two terms of --contrastive `kind`, those of --contrastive_weight and of --supcon_weight."""
    supervised = supervised_contrastive_loss(projection, labels)
    if kind == "infonce":
        return infonce_loss(projection, labels), supervised * share_with_partner(labels)
    return margin_contrastive_loss(embedding, labels), supervised


def _partners(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return who is compared with whom, (batch, batch) booleans: others of the own class, and the other class."""
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return same & ~itself, ~same


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `values` along their last dimension where `mask` holds; 0 where it holds nowhere."""
    return (values * mask).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
