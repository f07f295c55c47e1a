"""Axes of a chart: where ticks stand, what they are called, and where a value lies between the two ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

_LOG_FROM_RATIO = 30.0
_NEAREST_TICKS = 0.055
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """One axis: `ticks` are pairs of value and text; `place` gives 0 at the lower end and 1 at the upper one."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    scale: str = "linear"

    def place(self, value: float) -> float:
        """Return where a value lies, 0 to 1, cut off at the ends."""
        low, high, here = (_on(self.scale, part) for part in (self.low, self.high, value))
        return min(max((here - low) / (high - low), 0.0), 1.0)


def _on(scale: str, value: float) -> float:
    match scale:
        case "log":
            return math.log10(value) if value > 0 else -math.inf
        case "probit":
            return NormalDist().inv_cdf(min(max(value, 1e-9), 1 - 1e-9))
        case _:
            return value


def value_axis(values: Iterable[float], *, floor: float | None = None, ceiling: float | None = None) -> Axis:
    """Return an axis that all finite values fit on: linear, or logarithmic where they are positive and far apart.

    `floor` and `ceiling` are what the measure does not go below and above; an axis that nearly begins at the floor
    begins there. Values beyond them count all the same.

    >>> [text for _, text in value_axis([3.0, 11.0]).ticks]
    ['2', '4', '6', '8', '10', '12']
    >>> value_axis([0.5, 3.0], floor=0.0).low, value_axis([-0.5, 3.0], floor=0.0).low
    (0.0, -1.0)
    >>> value_axis([1e-5, 1.0]).scale
    'log'
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return _linear(0.0, 1.0)
    low, high = min(finite), max(finite)
    if low > 0 and high / low >= _LOG_FROM_RATIO:
        return _log(low, high)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    begin, end = low - margin, high + margin
    if floor is not None and floor <= low and begin < floor + (end - floor) * 0.25:
        begin = floor
    if ceiling is not None and high <= ceiling:
        end = min(end, ceiling)
    return _linear(begin, end)


def epoch_axis(last: int) -> Axis:
    """Return the axis of epochs, from 0 to `last` >= 1, with ticks at whole epochs.

    >>> [text for _, text in epoch_axis(12).ticks]
    ['0', '2', '4', '6', '8', '10', '12']
    """
    step = max(1, round(_nice_step(last / 7)))
    return Axis(0.0, float(last), tuple((float(tick), f"{tick}") for tick in range(0, last + 1, step)))


def rate_axis(low: float, high: float, percents: Sequence[float]) -> Axis:
    """Return the axis of a DET curve: error rates as fractions, on a scale where normal scores make a straight line.

    Of the `percents` it has ticks at those that do not stand too near to the one before.

    >>> [text for _, text in rate_axis(0.001, 0.6, (0.01, 0.1, 0.11, 1, 10, 50, 90)).ticks]
    ['0.1', '1', '10', '50']
    """
    axis = Axis(low, high, (), "probit")
    ticks: list[tuple[float, str]] = []
    for rate in (percent / 100 for percent in percents if 100 * low <= percent <= 100 * high):
        if not ticks or axis.place(rate) - axis.place(ticks[-1][0]) >= _NEAREST_TICKS:
            ticks.append((rate, f"{100 * rate:g}"))
    return Axis(low, high, tuple(ticks), "probit")


def _linear(low: float, high: float) -> Axis:
    step = _nice_step((high - low) / 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9) + (1 if _has_quarter(step) else 0))
    ticks = [(number * step, _decimal(number * step, decimals)) for number in range(first, last + 1)]
    return Axis(first * step, last * step, tuple(ticks))


def _decimal(value: float, decimals: int) -> str:
    if value and decimals > 5:
        return f"{value:.3g}"
    return f"{value:.{decimals}f}" if value else "0"


def _has_quarter(step: float) -> bool:
    return bool(abs(step / 10 ** math.floor(math.log10(step) + 1e-9) - 2.5) < 1e-9)


def _log(low: float, high: float) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    apart = max(1, math.ceil((last - first) / 6))
    powers = range(first, last + 1, apart)
    return Axis(10.0**first, 10.0**last, tuple((10.0**power, _power_text(power)) for power in powers), "log")


def _power_text(power: int) -> str:
    return f"{10.0**power:g}" if -3 <= power <= 4 else f"1e{power}"


def _nice_step(rough: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 and 10 times a power of ten that is no less than `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step for step in _STEPS if step * power >= rough * (1 - 1e-9)) * power
