"""Weighted averages whose weights are learned: the one building block of the hierarchical detector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ATTENTION_WIDTH = 128
PEAK_LOGIT = 2.0


class AttentionPooling(nn.Module):
    """Average the places of a sequence with weights softmax(v . tanh(W x + b)), v without an offset.

    131,328 parameters for `width` 1024. Source: arXiv 2602.01032; shape as in the public repository
    Nicholas42-hub/SLSforASVspoof-2021-DF, commit 13d4274.
    """

    def __init__(self, width: int, attention_width: int = ATTENTION_WIDTH) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, attention_width)
        self.score = nn.Linear(attention_width, 1, bias=False)

    def forward(self, sequence: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the average (..., width) of `sequence` (..., places, width) and its weights (..., places).

        `bias`, broadcastable to (..., places), is added to the scores before the softmax: minus infinity leaves a
        place out altogether.
        """
        place_scores = self.score(torch.tanh(self.hidden(sequence))).squeeze(-1)
        if bias is not None:
            place_scores = place_scores + bias
        weights = torch.softmax(place_scores, dim=-1)
        return (weights.unsqueeze(-2) @ sequence).squeeze(-2), weights


def centre_bias(frames: int) -> Tensor:
    """Return what the published code adds to the temporal scores: an inverted U of logits, as (frames,).

    2 (1 - ((t - T/2) / (T/2))^2): 0 at the first frame and +2 at the centre, so the middle of an utterance gets up
    to 7.4 times the weight of its edges before anything is learned.

    >>> centre_bias(4)
    tensor([0.0000, 1.5000, 2.0000, 1.5000])
    """
    half = frames / 2
    return PEAK_LOGIT * (1 - ((torch.arange(frames) - half) / half) ** 2)


def temporal_prior(temporal_bias: str, frames: int) -> Tensor:
    """Return the attention over time, (frames,), of a detector that has learned nothing; it sums to 1.

    What a heatmap shows beyond this is learned, what it shares with it is not.

    >>> temporal_prior("none", 4)
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    logits = centre_bias(frames) if temporal_bias == "centre" else torch.zeros(frames)
    return torch.softmax(logits, dim=0)
