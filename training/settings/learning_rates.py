"""The learning rate that each detector was published with, which is its default, and when another one is far from it.

Where none is published for detecting spoofs, it is the rate that the results of this program were measured with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

FORMER_DEFAULT = 1e-6
"""The default of every detector, whatever it was, until each got its own (checkpoints up to format 2)."""
LAST_FORMAT_WITH_FORMER_DEFAULT = 2

RATE_OF_DETECTOR = math.nan
"""Stands for a learning rate that was not given, until the detector is known. This object alone: nan is no rate."""

_FAR = 10


@dataclass(frozen=True)
class Rate:
    """A learning rate and where it comes from, in words that end a sentence."""

    value: float
    source: str


_OURS = "with which the results of this program were measured; none is published"
RATES: Mapping[str, Rate] = {
    "g3_heatmap": Rate(1e-6, "published for fine-tuning XLS-R (arXiv 2602.01032)"),
    "sls": Rate(1e-6, "published for fine-tuning XLS-R (QiShanZhang/SLSforASVspoof-2021-DF)"),
    "ssl_mean": Rate(1e-6, "published for fine-tuning XLS-R in the field (TakHemlata/SSL_Anti-spoofing)"),
    "aasist": Rate(1e-4, "published (arXiv 2110.01200)"),
    "aasist_l": Rate(1e-4, "published (arXiv 2110.01200)"),
    "lcnn": Rate(3e-4, "published (asvspoof-challenge/2021, DF/Baseline-LFCC-LCNN)"),
    "spectrogram_resnet18": Rate(1e-3, _OURS),
    "hifigan": Rate(2e-4, "published (arXiv 2010.05646)"),
    "spectrogram_swin": Rate(1e-3, "of spectrogram_resnet18; none is published, and none was measured"),
}
_FROM_RANDOM = Rate(1e-3, "which layers with random weights took in the runs of this program")


def default_rate(model_type: str) -> float:
    """Return the learning rate of a detector where none is given; for an unknown one, refused elsewhere, the old one.

    >>> default_rate("g3_heatmap"), default_rate("aasist")
    (1e-06, 0.0001)
    """
    return RATES[model_type].value if model_type in RATES else FORMER_DEFAULT


def note_on_rate(lr: float, model_type: str, *, is_pretrained: bool) -> str:
    """Return what is to be said of a learning rate far from the usual one, "" where it is near or none is usual.

    `is_pretrained`: a front-end with trained weights is fine-tuned; else all that is trained on it begins at random,
    and the rate published for fine-tuning says nothing of that.

    >>> note_on_rate(1e-6, "aasist", is_pretrained=False)
    '--lr 1e-06 is 100 times lower than 0.0001, published (arXiv 2110.01200)'
    >>> note_on_rate(1e-3, "aasist", is_pretrained=False)
    '--lr 0.001 is 10 times higher than 0.0001, published (arXiv 2110.01200)'
    >>> note_on_rate(3e-4, "aasist", is_pretrained=False)
    ''
    """
    usual = RATES.get(model_type)
    if usual is None:
        return ""
    if usual.value == FORMER_DEFAULT and not is_pretrained:
        usual = _FROM_RANDOM
    factor = max(lr / usual.value, usual.value / lr)
    if factor < _FAR * (1 - 1e-9):
        return ""
    direction = "higher" if lr > usual.value else "lower"
    return f"--lr {lr} is {factor:.4g} times {direction} than {usual.value}, {usual.source}"
