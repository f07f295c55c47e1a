"""From the published flags of RawBoost to the augmentation of training utterances."""

from __future__ import annotations

from training.settings.options import Options
from utils.audio.notch_filters import NotchRanges
from utils.audio.rawboost import RawBoost


def rawboost_of(options: Options) -> RawBoost:
    """Return the augmentation that --algo and the flags of its group ask for.

    >>> rawboost_of(Options()) == RawBoost()
    True
    """
    notches = NotchRanges(
        num_bands=options.nBands,
        min_centre_hz=options.minF,
        max_centre_hz=options.maxF,
        min_width_hz=options.minBW,
        max_width_hz=options.maxBW,
        min_taps=options.minCoeff,
        max_taps=options.maxCoeff,
        min_gain_db=options.minG,
        max_gain_db=options.maxG,
    )
    return RawBoost(
        algorithm=options.algo,
        notches=notches,
        num_powers=options.N_f,
        min_lowered_db=options.minBiasLinNonLin,
        max_lowered_db=options.maxBiasLinNonLin,
        max_percent=options.P,
        impulse_gain=options.g_sd,
        min_snr_db=options.SNRmin,
        max_snr_db=options.SNRmax,
    )
