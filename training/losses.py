"""What training minimises: weighted cross-entropy, and two contrastive terms that pull utterances of a class together.

Labels are (batch,) integers, 0 for spoof and 1 for bona fide. With bona fide utterances rare, many batches hold one or
none: an utterance without the partners a contrastive term needs is left out of it, and a batch without any gives
exactly zero, still part of the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.detector import BONA_FIDE, SPOOF

# Of ASVspoof 2019 LA training, where one utterance in ten is bona fide (clovaai/aasist main.py and its descendants).
SPOOF_WEIGHT = 0.1
BONA_FIDE_WEIGHT = 0.9
MARGIN = 0.5
TEMPERATURE = 0.1


def weighted_cross_entropy_terms(log_probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return each utterance's negative log-likelihood in nats times its class weight, and that weight, both (batch,).

    `log_probabilities` is (batch, 2). The loss of many batches is the sum of all terms over the sum of all weights; a
    mean of the batches' means would depend on the batch size.

    >>> even = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    >>> weighted_cross_entropy_terms(even, torch.tensor([0, 1]))
    (tensor([0.0693, 0.6238]), tensor([0.1000, 0.9000]))
    """
    is_bona_fide = labels == BONA_FIDE
    likelihoods = torch.where(is_bona_fide, log_probabilities[:, BONA_FIDE], log_probabilities[:, SPOOF])
    weights = torch.where(is_bona_fide, BONA_FIDE_WEIGHT, SPOOF_WEIGHT).to(likelihoods.dtype)
    return -weights * likelihoods, weights


def weighted_cross_entropy(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the weighted mean negative log-likelihood in nats, a scalar; as torch's NLLLoss with class weights."""
    terms, weights = weighted_cross_entropy_terms(log_probabilities, labels)
    return terms.sum() / weights.sum()


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


def _partners(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return who is compared with whom, (batch, batch) booleans: others of the own class, and the other class."""
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return same & ~itself, ~same


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `values` along their last dimension where `mask` holds; 0 where it holds nowhere."""
    return (values * mask).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
