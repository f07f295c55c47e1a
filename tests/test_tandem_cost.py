"""Both t-DCFs against values worked by hand, against counting, and where they have none."""

from __future__ import annotations

import numpy as np
import pytest

from tests.scores import SIX_CURVE, counted_rates, drawn
from utils.errors import UserError
from utils.scores.error_curve import ScoredTrials, error_curve
from utils.scores.tandem_cost import (
    DEFAULT_ASV_RATES,
    AsvErrorRates,
    asv_error_rates,
    min_tdcf_legacy,
    min_tdcf_revised,
    revised_coefficients,
)

# Priors: target 0.9405, nontarget 0.0095, spoof 0.05; costs 1, 10, 10.
SOME = AsvErrorRates(false_alarm_rate=0.1, miss_rate=0.2, spoof_false_alarm_rate=0.4)
# Half of the targets are missed and all spoof is accepted: false alarms weigh more than misses.
POOR = AsvErrorRates(false_alarm_rate=0.0, miss_rate=0.5, spoof_false_alarm_rate=1.0)


@pytest.mark.parametrize(
    ("asv", "legacy", "revised"),
    [
        # C1 = 0.9405 x 0.8 - 0.0095 x 10 x 0.1 = 0.7429, C2 = 0.5 x 0.4 = 0.2: lowest at misses 0, false alarms 1/3.
        # Legacy: 0.2 / 3 / 0.2. Revised: C0 = 0.1881 + 0.0095 = 0.1976, (0.1976 + 0.2 / 3) / (0.1976 + 0.2).
        (SOME, 1 / 3, (0.1976 + 0.2 / 3) / 0.3976),
        # C1 = 0.9405 x 0.5 = 0.47025 and C2 = 0.5: lowest at misses 1/3, false alarms 0.
        # Legacy: 0.47025 / 3 / 0.47025. Revised: C0 = 0.47025, (0.47025 + 0.47025 / 3) / (2 x 0.47025).
        (POOR, 1 / 3, 2 / 3),
    ],
)
def test_both_t_dcfs_of_six_scores_equal_the_values_worked_by_hand(
    asv: AsvErrorRates, legacy: float, revised: float
) -> None:
    assert min_tdcf_legacy(SIX_CURVE, asv) == pytest.approx(legacy, abs=1e-12)
    assert min_tdcf_revised(SIX_CURVE, asv) == pytest.approx(revised, abs=1e-12)


def test_the_coefficients_equal_the_values_worked_by_hand() -> None:
    assert revised_coefficients(SOME) == pytest.approx((0.1976, 0.7429, 0.2))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("asv", [SOME, POOR, DEFAULT_ASV_RATES])
def test_both_t_dcfs_equal_the_lowest_of_all_counted_costs(seed: int, asv: AsvErrorRates) -> None:
    """Written as the evaluation plans write them, with the rate of spoof that the ASV rejects in the legacy one."""
    trials = drawn(seed)
    rates, curve = counted_rates(trials), error_curve(trials)
    c1 = 0.9405 * (1 - 1 * asv.miss_rate) - 0.0095 * 10 * asv.false_alarm_rate
    c2 = 10 * 0.05 * (1 - (1 - asv.spoof_false_alarm_rate))
    assert min_tdcf_legacy(curve, asv) == pytest.approx(min(c1 * m + c2 * f for m, f in rates) / min(c1, c2))
    c0 = 0.9405 * asv.miss_rate + 0.0095 * 10 * asv.false_alarm_rate
    c1, c2 = 0.9405 - c0, 0.05 * 10 * asv.spoof_false_alarm_rate
    revised = min(c0 + c1 * m + c2 * f for m, f in rates) / (c0 + min(c1, c2))
    assert min_tdcf_revised(curve, asv) == pytest.approx(revised)


def test_a_perfect_detector_costs_nothing_in_the_legacy_t_dcf_and_what_the_asv_costs_in_the_revised_one() -> None:
    curve = error_curve(ScoredTrials(np.array([1.0, 2.0]), np.array([-1.0, -2.0])))
    assert min_tdcf_legacy(curve, SOME) == 0
    assert min_tdcf_revised(curve, SOME) == pytest.approx(0.1976 / 0.3976)


def test_scores_with_the_sign_turned_cost_as_much_as_no_detector() -> None:
    curve = error_curve(drawn(1).flipped)
    assert (min_tdcf_legacy(curve, SOME), min_tdcf_revised(curve, SOME)) == (1, 1)


def test_the_asv_error_rates_equal_the_values_worked_by_hand() -> None:
    """Ascending n0 t1 n1.5 t2 t3 t4: misses 0 0 1/4 1/4 ..., false alarms 1 1/2 1/2 0 ...: closest first at 1.

    At or above 1 one of two nontargets is accepted, no target missed, two of three spoof scores accepted.
    """
    found = asv_error_rates([1, 2, 3, 4], [0, 1.5], [0.5, 1, 3])
    assert found == AsvErrorRates(false_alarm_rate=0.5, miss_rate=0.0, spoof_false_alarm_rate=2 / 3)


@pytest.mark.parametrize("missing", range(3))
@pytest.mark.parametrize("scores", [[], [float("nan")], [float("inf"), 1.0]])
def test_asv_error_rates_need_finite_scores_of_all_three_kinds(missing: int, scores: list[float]) -> None:
    kinds = [[1.0, 2.0], [0.0, 1.5], [0.5]]
    kinds[missing] = scores
    with pytest.raises(UserError, match=f"found {len(scores)} {('target', 'nontarget', 'spoof')[missing]} scores"):
        asv_error_rates(*kinds)


@pytest.mark.parametrize("t_dcf", [min_tdcf_legacy, min_tdcf_revised])
@pytest.mark.parametrize(
    ("asv", "reason"),
    [
        (AsvErrorRates(0.1, 0.1, 0.0), "the ASV accepts no spoof, so the detector has nothing to prevent"),
        (AsvErrorRates(1.0, 0.95, 0.5), "the ASV alone costs more than rejecting everyone"),
    ],
)
def test_a_t_dcf_without_a_meaning_is_refused_with_the_rates(t_dcf: object, asv: AsvErrorRates, reason: str) -> None:
    assert callable(t_dcf)
    with pytest.raises(UserError, match=f"spoof accepted {asv.spoof_false_alarm_rate:.4f}: check --asv_scores"):
        t_dcf(SIX_CURVE, asv)


@pytest.mark.parametrize("t_dcf", [min_tdcf_legacy, min_tdcf_revised])
def test_a_t_dcf_of_decisions_is_refused(t_dcf: object) -> None:
    """As the official packages do."""
    assert callable(t_dcf)
    curve = error_curve(ScoredTrials(np.array([1.0, 1.0, 0.0]), np.array([0.0, 1.0])))
    with pytest.raises(UserError, match="fewer than 3 different values"):
        t_dcf(curve, SOME)


@pytest.mark.parametrize("rates", [(-0.1, 0, 0), (0, 1.1, 0), (0, 0, float("nan"))])
def test_asv_error_rates_that_are_no_fractions_cannot_be_built(rates: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="fractions"):
        AsvErrorRates(*rates)
