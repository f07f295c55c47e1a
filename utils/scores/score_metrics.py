"""All figures of one set of scores, pooled and by group, from one sort of the scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.errors import UserError
from utils.scores.calibration import cllr
from utils.scores.detection_cost import OperatingPoint, actual_dcf, min_dcf
from utils.scores.error_curve import ErrorCurve, ScoredTrials, error_curve
from utils.scores.metrics import EqualErrorRate, equal_error_rate_of
from utils.scores.minimum_cllr import min_cllr
from utils.scores.score_files import JoinedScores
from utils.scores.tandem_cost import AsvErrorRates, min_tdcf_legacy, min_tdcf_revised
from utils.scores.trial_keys import Factor

LOOKS_FLIPPED_BELOW_PERCENT = 45
"""An EER near 50 % is that of scores that tell nothing, whatever their sign; below this, the turned ones tell much."""


@dataclass(frozen=True)
class PooledMetrics:
    """The figures over all trials; `flipped_eer_percent` is None unless the sign of the scores looks flipped.

    The two minimum t-DCFs are on the `asv` error rates; where they are None, `why_no_tdcf` says why.
    """

    num_bona_fide: int
    num_spoof: int
    eer: EqualErrorRate
    flipped_eer_percent: float | None
    asv: AsvErrorRates | None
    min_tdcf_legacy: float | None
    min_tdcf_revised: float | None
    why_no_tdcf: str
    min_dcf: OperatingPoint
    actual_dcf: OperatingPoint
    cllr_bits: float
    min_cllr_bits: float


@dataclass(frozen=True)
class GroupMetrics:
    """One attack, codec or other group; `eer_percent` and `min_dcf` are None where a class is missing in it."""

    name: str
    num_bona_fide: int
    num_spoof: int
    eer_percent: float | None
    min_dcf: float | None


def pooled_metrics(
    trials: ScoredTrials, curve: ErrorCurve, asv: AsvErrorRates | None, why_no_asv: str = ""
) -> PooledMetrics:
    """Return the figures of `trials`, whose error curve is `curve`; without `asv`, `why_no_asv` says why not."""
    eer = equal_error_rate_of(curve)
    legacy = revised = None
    why_no_tdcf = why_no_asv
    if asv:
        try:
            legacy, revised = min_tdcf_legacy(curve, asv), min_tdcf_revised(curve, asv)
        except UserError as error:
            why_no_tdcf = str(error)
    return PooledMetrics(
        num_bona_fide=trials.bona_fide.size,
        num_spoof=trials.spoof.size,
        eer=eer,
        flipped_eer_percent=_flipped_eer_percent(trials, eer),
        asv=asv,
        min_tdcf_legacy=legacy,
        min_tdcf_revised=revised,
        why_no_tdcf=why_no_tdcf,
        min_dcf=min_dcf(curve),
        actual_dcf=actual_dcf(trials),
        cllr_bits=cllr(trials),
        min_cllr_bits=min_cllr(trials),
    )


def _flipped_eer_percent(trials: ScoredTrials, eer: EqualErrorRate) -> float | None:
    """Return the EER with the sign turned where turning would help substantially, else None."""
    if eer.eer_percent <= 50:
        return None
    turned = equal_error_rate_of(error_curve(trials.flipped)).eer_percent
    return turned if turned < LOOKS_FLIPPED_BELOW_PERCENT else None


def group_metrics(joined: JoinedScores, factor: Factor) -> tuple[GroupMetrics, ...]:
    """Return the figures of each group of a factor that has trials.

    An attack or a vocoder is compared with all bona fide trials, a codec with those under the same codec, as in the
    official packages.
    """
    groups = []
    for code, name in enumerate(factor.names):
        is_member = factor.codes == code
        is_spoof = is_member & ~joined.is_bona_fide
        is_bona_fide = joined.is_bona_fide if factor.of_spoof_only else is_member & joined.is_bona_fide
        if is_spoof.any() or (is_bona_fide.any() and not factor.of_spoof_only):
            groups.append(_group(name, joined.scores[is_bona_fide], joined.scores[is_spoof]))
    return tuple(groups)


def _group(name: str, bona_fide: np.ndarray, spoof: np.ndarray) -> GroupMetrics:
    if bona_fide.size == 0 or spoof.size == 0:
        return GroupMetrics(name, bona_fide.size, spoof.size, None, None)
    curve = error_curve(ScoredTrials(bona_fide, spoof))
    return GroupMetrics(name, bona_fide.size, spoof.size, equal_error_rate_of(curve).eer_percent, min_dcf(curve).cost)
