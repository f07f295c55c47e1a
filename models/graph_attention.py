"""Attention among the nodes of a fully connected graph, of one kind or of two, and pooling that keeps the best nodes.

Source: Jung et al. 2022, arXiv 2110.01200, sections 2.2 and 3, and clovaai/aasist models/AASIST.py, whose names of
parameters are kept: its published weights load key for key.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_norm import BatchNorm1d

INPUT_DROPOUT = 0.2
POOLING_DROPOUT = 0.3


class GraphAttention(nn.Module):
    """Updates every node with a weighted mean of all nodes: nodes (batch, nodes, width) to (batch, nodes, out_width).

    The weight of node j for node i is the softmax over j of a . tanh(W (x_i * x_j)) / temperature.
    """

    def __init__(self, width: int, out_width: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.att_proj = nn.Linear(width, out_width)
        self.att_weight = _attention_vector(out_width)
        self.proj_with_att = nn.Linear(width, out_width)
        self.proj_without_att = nn.Linear(width, out_width)
        self.bn = BatchNorm1d(out_width)
        self.input_drop = nn.Dropout(INPUT_DROPOUT)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the updated nodes (batch, nodes, out_width)."""
        nodes = self.input_drop(nodes)
        compared = torch.tanh(self.att_proj(_products(nodes)))
        weights = _softmax(compared @ self.att_weight, self.temperature)
        return _activated(self.bn, self.proj_with_att(weights @ nodes) + self.proj_without_att(nodes))


class HeterogeneousGraphAttention(nn.Module):
    """Updates the nodes of two kinds together, and a master node that listens to all of them and tells them nothing.

    Each kind is first mapped by a layer of its own; the attention vector depends on the kinds that are compared.
    """

    def __init__(self, width: int, out_width: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.proj_type1 = nn.Linear(width, width)
        self.proj_type2 = nn.Linear(width, width)
        self.att_proj = nn.Linear(width, out_width)
        self.att_projM = nn.Linear(width, out_width)
        self.att_weight11 = _attention_vector(out_width)
        self.att_weight22 = _attention_vector(out_width)
        self.att_weight12 = _attention_vector(out_width)
        self.att_weightM = _attention_vector(out_width)
        self.proj_with_att = nn.Linear(width, out_width)
        self.proj_without_att = nn.Linear(width, out_width)
        self.proj_with_attM = nn.Linear(width, out_width)
        self.proj_without_attM = nn.Linear(width, out_width)
        self.bn = BatchNorm1d(out_width)
        self.input_drop = nn.Dropout(INPUT_DROPOUT)

    def forward(self, first: Tensor, second: Tensor, master: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return both kinds (batch, nodes of the kind, out_width) and the master (batch, 1, out_width), updated.

        They come in as (batch, nodes of the kind, width); the master may be one for the whole batch, (1, 1, width).
        """
        num_first = first.shape[1]
        nodes = self.input_drop(torch.cat([self.proj_type1(first), self.proj_type2(second)], dim=1))
        weights = _softmax(self._compare(nodes, num_first), self.temperature)
        heard = torch.tanh(self.att_projM(nodes * master)) @ self.att_weightM
        listening = _softmax(heard.transpose(1, 2).unsqueeze(-1), self.temperature)
        master = self.proj_with_attM(listening @ nodes) + self.proj_without_attM(master)
        updated = _activated(self.bn, self.proj_with_att(weights @ nodes) + self.proj_without_att(nodes))
        first, second = updated.tensor_split([num_first], dim=1)
        return first, second, master

    def _compare(self, nodes: Tensor, num_first: int) -> Tensor:
        """Return how much each node heeds each other one, before the softmax, as (batch, nodes, nodes, 1)."""
        of_first, of_second = torch.tanh(self.att_proj(_products(nodes))).tensor_split([num_first], dim=1)
        rows = []
        for row, vectors in (
            (of_first, (self.att_weight11, self.att_weight12)),
            (of_second, (self.att_weight12, self.att_weight22)),
        ):
            columns = zip(row.tensor_split([num_first], dim=2), vectors, strict=True)
            rows.append(torch.cat([compared @ vector for compared, vector in columns], dim=2))
        return torch.cat(rows, dim=1)


class GraphPooling(nn.Module):
    """Keeps the share `ratio` of the nodes with the highest scores, at least one, and scales each by its score."""

    def __init__(self, ratio: float, width: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.proj = nn.Linear(width, 1)
        self.drop = nn.Dropout(POOLING_DROPOUT)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return (batch, kept nodes, width) of `nodes` (batch, nodes, width), the highest score first."""
        scores = torch.sigmoid(self.proj(self.drop(nodes)))
        kept = max(int(nodes.shape[1] * self.ratio), 1)
        best = scores.topk(kept, dim=1).indices.expand(-1, -1, nodes.shape[2])
        return (nodes * scores).gather(1, best)


def _products(nodes: Tensor) -> Tensor:
    """Return the product of every two nodes, (batch, nodes, nodes, width)."""
    return nodes.unsqueeze(2) * nodes.unsqueeze(1)


def _softmax(compared: Tensor, temperature: float) -> Tensor:
    """Return weights (batch, nodes, nodes) that sum to 1 along the last dimension, of (batch, nodes, nodes, 1)."""
    return F.softmax(compared.squeeze(-1) / temperature, dim=-1)


def _activated(norm: BatchNorm1d, nodes: Tensor) -> Tensor:
    """Normalise each feature over all nodes of the batch."""
    return F.selu(norm(nodes.flatten(end_dim=1)).view_as(nodes))


def _attention_vector(width: int) -> nn.Parameter:
    vector = nn.Parameter(torch.empty(width, 1))
    nn.init.xavier_normal_(vector)
    return vector
