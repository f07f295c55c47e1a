"""The verdict on a score: the sign of its calibrated log-likelihood ratio against the prior, and where that turns.

There is one rule, and the verdict, the ratio and the threshold that a person reads are three views of it: none of them
can contradict another, to the last bit. Plain numbers, no NumPy.
"""

from __future__ import annotations

import math
import struct
import sys
from dataclasses import dataclass
from functools import cached_property

BONA_FIDE, SPOOF = "bona fide", "spoof"
EVEN_PRIOR = 0.5


@dataclass(frozen=True)
class VerdictRule:
    """Bona fide where `scale` x score + `offset`, a log-likelihood ratio (natural log), is above `bar`.

    The bar is the log-odds of spoof before anything was heard, by `bona_fide_prior`: the decision of least expected
    error (Brummer and du Preez, Computer Speech & Language 20 (2006), section 2). It is 0 for an even prior.

    >>> rule = VerdictRule(scale=2.0, offset=-1.0)
    >>> rule.threshold, rule.verdict(0.5), rule.verdict(0.6), round(rule.llr(0.6), 6)
    (0.5, 'spoof', 'bona fide', 0.2)
    """

    scale: float
    offset: float
    bona_fide_prior: float = EVEN_PRIOR

    def __post_init__(self) -> None:
        if not (0 < self.scale < math.inf and math.isfinite(self.offset)):
            raise ValueError(f"a verdict needs a calibration whose slope is positive, found {self.scale}")
        if not 0 < self.bona_fide_prior < 1:
            raise ValueError(f"a prior lies between 0 and 1, found {self.bona_fide_prior}")

    @property
    def bar(self) -> float:
        """What the log-likelihood ratio must exceed."""
        return math.log((1 - self.bona_fide_prior) / self.bona_fide_prior)

    def llr(self, score: float) -> float:
        """Return the log-likelihood ratio of a score, which does not depend on the prior."""
        return self.scale * score + self.offset

    def verdict(self, score: float) -> str:
        """Return what the score means; exactly on the bar it is spoof."""
        return BONA_FIDE if self.llr(score) > self.bar else SPOOF

    @cached_property
    def threshold(self) -> float:
        """The highest number that is no bona fide score yet: above it, and only there, the verdict is bona fide.

        Found by halving among all numbers there are, since (bar - offset) / scale is rounded.
        """
        low, high = -sys.float_info.max, sys.float_info.max
        first, last = _rank(low), _rank(high)
        while last - first > 1:
            middle = (first + last) // 2
            if self.llr(_of_rank(middle)) > self.bar:
                last = middle
            else:
                first = middle
        return _of_rank(first)


def _rank(number: float) -> int:
    """Return the place of a number among all of double precision, in ascending order."""
    (bits,) = struct.unpack("<q", struct.pack("<d", number))
    return int(bits) if bits >= 0 else -(int(bits) & 0x7FFF_FFFF_FFFF_FFFF)


def _of_rank(rank: int) -> float:
    (number,) = struct.unpack("<d", struct.pack("<q", abs(rank)))
    return float(number) if rank >= 0 else -float(number)
