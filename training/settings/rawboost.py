"""The settings of RawBoost, which augments training utterances: names and defaults are the published ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.settings.setting import OnChange, setting
from utils.errors import EXIT_USAGE, UserError

RANGES = (("minF", "maxF"), ("minBW", "maxBW"), ("minCoeff", "maxCoeff"), ("minG", "maxG"), ("SNRmin", "SNRmax"))


def augmentation(default: Any, text: str, **limits: Any) -> Any:
    """Declare one setting of RawBoost."""
    return setting(default, "augmentation", OnChange.BREAKS_EPOCH, text, **limits)


@dataclass(frozen=True)
class RawBoostSettings:
    """The part of Options that shapes RawBoost."""

    algo: int = augmentation(
        0,
        "RawBoost: 0 none; 1 convolutive, 2 impulsive, 3 coloured noise; in series 4: 1, 2, 3; 5: 1, 2; 6: 1, 3; "
        "7: 2, 3; 8: 1 and 2 summed. The published recipe of g3_heatmap uses 3 on the DF track and 5 on LA",
        at_least=0,
        at_most=8,
    )
    nBands: int = augmentation(5, "notches in each random filter (1, 3)", at_least=1)
    minF: float = augmentation(20.0, "lowest centre of a notch, Hz", at_least=0)
    maxF: float = augmentation(8000.0, "highest centre of a notch, Hz", at_most=8000)
    minBW: float = augmentation(100.0, "least width of a notch, Hz", at_least=1)
    maxBW: float = augmentation(1000.0, "greatest width of a notch, Hz")
    minCoeff: int = augmentation(10, "fewest taps of a notch", at_least=1)
    maxCoeff: int = augmentation(100, "most taps of a notch")
    minG: float = augmentation(0.0, "least gain of a filter at its peak, dB (1)")
    maxG: float = augmentation(0.0, "greatest gain of a filter at its peak, dB (1)")
    minBiasLinNonLin: float = augmentation(5.0, "--minG is lower by this for the powers of the waveform, dB (1)")
    maxBiasLinNonLin: float = augmentation(20.0, "--maxG is lower by this for the powers of the waveform, dB (1)")
    N_f: int = augmentation(5, "highest power of the waveform (1); 1: linear filtering only", at_least=1)
    P: float = augmentation(10.0, "greatest share of samples that impulses change, % (2)", at_least=0, at_most=100)
    g_sd: float = augmentation(2.0, "gain of the impulses (2)", at_least=0)
    SNRmin: float = augmentation(10.0, "least signal-to-noise ratio of the coloured noise, dB (3)")
    SNRmax: float = augmentation(40.0, "greatest signal-to-noise ratio of the coloured noise, dB (3)")

    def refuse_ranges_turned_round(self) -> None:
        """Raise UserError where the lower end of a range lies above its upper end."""
        for lower, upper in RANGES:
            if getattr(self, lower) > getattr(self, upper):
                found = f"{getattr(self, lower):g} and {getattr(self, upper):g}"
                raise UserError(f"--{lower} must not exceed --{upper}, found {found}", EXIT_USAGE)
