"""The g3_heatmap detector: attention over time, then over the layers of a group, then over the groups of layers.

The shape is that of "HierCon", arXiv 2602.01032, and of the public repository Nicholas42-hub/SLSforASVspoof-2021-DF
(commit 13d4274), which trains it under this name with groups of 3 layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention_pooling import AttentionPooling, centre_bias
from models.detector import AttentionWeights, DetectorOutput, DetectorSettings
from models.front_end import SelfSupervisedFrontEnd
from models.front_end_detector import FrontEndDetector
from utils.errors import UserError

PROJECTION_WIDTH = 256
EMBEDDING_LIMIT = 10.0


class G3Heatmap(FrontEndDetector):
    """A self-supervised front-end, all of its layers, and `HierarchicalBackEnd` on top.

    Raises `UserError` if `group_size` exceeds the number of layers.
    """

    def __init__(self, settings: DetectorSettings, front_end: SelfSupervisedFrontEnd) -> None:
        super().__init__(settings, front_end)
        if settings.group_size > front_end.layer_count:
            layers = front_end.layer_count
            raise UserError(
                f"--group_size must not exceed the number of layers of --ssl_model {settings.ssl_model}, "
                f"{layers}, found {settings.group_size}: pass {min(3, layers)}, for example"
            )
        self.back_end = HierarchicalBackEnd(
            width=front_end.width,
            group_size=settings.group_size,
            use_contrastive=settings.use_contrastive,
            temporal_bias=settings.temporal_bias,
        )

    def decide(self, representation: Tensor) -> DetectorOutput:
        """Return all the detector says about the layers of the front-end, (batch, layers, frames, width)."""
        output: DetectorOutput = self.back_end(representation)
        return output


class HierarchicalBackEnd(nn.Module):
    """Three levels of attention pooling over the outputs of all layers, then a classifier.

    One temporal pooling is shared by all layers and one intra-group pooling by all groups. For `width` 1024 there
    are 2,763,778 parameters, and 3,421,954 with `use_contrastive`, which adds the projection.
    """

    def __init__(self, width: int, group_size: int, use_contrastive: bool, temporal_bias: str) -> None:
        super().__init__()
        self.group_size = group_size
        self.temporal_bias = temporal_bias
        self.temporal_pooling = AttentionPooling(width)
        self.intra_pooling = AttentionPooling(width)
        self.group_refinement = ResidualRefinement(width)
        self.inter_pooling = AttentionPooling(width)
        self.utterance_refinement = ResidualRefinement(width)
        self.classifier = _classifier(width)
        self.projection = _projection(width) if use_contrastive else None

    def forward(self, layers: Tensor) -> DetectorOutput:
        """Return the decision, and what it was made from, for `layers` (batch, layers, frames, width)."""
        summaries, temporal = self._pool_time(layers)
        grouped, padding_bias = self._group(summaries)
        groups, intra = self.intra_pooling(grouped, padding_bias)
        utterance, inter = self.inter_pooling(self.group_refinement(groups))
        embedding = self.utterance_refinement(utterance)
        if self.training:
            embedding = embedding.clamp(-EMBEDDING_LIMIT, EMBEDDING_LIMIT)
        return DetectorOutput(
            log_probabilities=F.log_softmax(self.classifier(embedding), dim=-1),
            embedding=embedding,
            projection=None if self.projection is None else F.normalize(self.projection(embedding), dim=-1),
            attention=AttentionWeights(temporal, intra, inter),
        )

    def _pool_time(self, layers: Tensor) -> tuple[Tensor, Tensor]:
        """Return one vector per layer, (batch, layers, width), and the weights (batch, layers, frames)."""
        bias = centre_bias(layers.shape[2]).to(layers) if self.temporal_bias == "centre" else None
        # One flat batch: a matrix product broadcast over two leading dimensions is slower, and the weights are shared.
        pooled, weights = self.temporal_pooling(layers.flatten(end_dim=1), bias)
        return pooled.view(*layers.shape[:2], -1), weights.view(*layers.shape[:2], -1)

    def _group(self, summaries: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return `summaries` (batch, layers, width) as (batch, groups, group_size, width), zero-padded at the end.

        The second value, (groups, group_size), is minus infinity at padded places, so that they get no attention;
        None if there are none.
        """
        missing = -summaries.shape[1] % self.group_size
        batch, _, width = summaries.shape
        grouped = F.pad(summaries, (0, 0, 0, missing)).view(batch, -1, self.group_size, width)
        if missing == 0:
            return grouped, None
        bias = summaries.new_zeros(grouped.shape[1] * self.group_size)
        bias[-missing:] = -torch.inf
        return grouped, bias.view(-1, self.group_size)


class ResidualRefinement(nn.Module):
    """x + MLP(x) through half the width; 1,052,160 parameters for `width` 1024."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width // 2),
            nn.SELU(),
            nn.Dropout(0.1),
            nn.Linear(width // 2, width),
            nn.Dropout(0.1),
        )

    def forward(self, vector: Tensor) -> Tensor:
        """Return `vector` (..., width) refined, in the same shape."""
        refined: Tensor = vector + self.residual(vector)
        return refined


def _classifier(width: int) -> nn.Sequential:
    """Return the head that gives two logits, spoof then bona fide; 265,474 parameters for `width` 1024."""
    return _initialised(
        nn.LayerNorm(width),
        nn.SELU(),
        nn.Dropout(0.15),
        nn.Linear(width, 256),
        nn.LayerNorm(256),
        nn.SELU(),
        nn.Dropout(0.15),
        nn.Linear(256, 2),
    )


def _projection(width: int) -> nn.Sequential:
    """Return the head whose output the supervised contrastive loss compares; 658,176 parameters for `width` 1024."""
    return _initialised(
        nn.LayerNorm(width),
        nn.Linear(width, width // 2),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(width // 2, PROJECTION_WIDTH),
    )


def _initialised(*modules: nn.Module) -> nn.Sequential:
    """Chain `modules`, their linear layers drawn as the published code draws them: Xavier-uniform, zero offsets."""
    for module in modules:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return nn.Sequential(*modules)
