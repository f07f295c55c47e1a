"""A detector that decides by the angle between its embedding and one learned direction, that of bona fide speech.

Source: Zhang, Jiang and Duan 2021, arXiv 2010.13995, section 3: bona fide utterances are drawn to one centre, spoofed
ones, of whatever kind, are kept away from it. The constants are the paper's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.detector import Detector, DetectorOutput
from utils.errors import UserError

SCALE = 20.0
BONA_FIDE_MARGIN = 0.9
SPOOF_MARGIN = 0.2
THRESHOLD = (BONA_FIDE_MARGIN + SPOOF_MARGIN) / 2


class OneClassDetector(Detector):
    """Another detector with its own decision left out: log-odds 20 (cosine of embedding and centre - 0.55).

    So the log-odds rank as the cosine does, which is the paper's score, between -31 and 9, and are 0 half-way between
    the two margins. The centre is a parameter like any other, its length meaning nothing. The layers behind the other
    detector's own decision get no gradient. Raises UserError if that detector offers no embedding.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector.settings)
        if detector.embedding_width is None:
            raise UserError(
                "--loss oc_softmax needs a detector with an embedding, and --model_type "
                f"{detector.settings.model_type} offers none: pass another --loss"
            )
        self.detector = detector
        self.centre = nn.Parameter(torch.randn(detector.embedding_width))

    @property
    def front_end_config(self) -> dict[str, Any]:
        """That of the detector inside."""
        return self.detector.front_end_config

    @property
    def embedding_width(self) -> int | None:
        """That of the detector inside."""
        return self.detector.embedding_width

    def represent(self, waveform: Tensor) -> Tensor:
        """Return what the detector inside hears."""
        return self.detector.represent(waveform)

    def decide(self, representation: Tensor) -> DetectorOutput:
        """Return what the detector inside says, but for the decision."""
        output = self.detector.decide(representation)
        assert output.embedding is not None
        cosine = F.cosine_similarity(output.embedding, self.centre, dim=-1)
        log_odds = SCALE * (cosine - THRESHOLD)
        return replace(output, log_probabilities=F.logsigmoid(torch.stack([-log_odds, log_odds], dim=-1)))
