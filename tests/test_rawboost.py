"""RawBoost: the published distributions by faster means, at every length, as a function of its generator alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import signal

from training.data.augmentation import rawboost_of
from training.data.batches import TrainingView, validation_view
from training.settings.options import Options
from utils.audio.notch_filters import NotchRanges, cascades, filter_powers, random_cascades
from utils.audio.rawboost import SERIES, RawBoost, coloured_noise, convolutive_noise, impulsive_noise
from utils.audio.waveforms import CROP_SAMPLES, SAMPLE_RATE_HZ, Waveform, fit_length
from utils.seeding import generator_at

ALGORITHMS = range(9)
LENGTHS = (1, 2, 3, 100, 5000, CROP_SAMPLES, 100_001)


def tone_and_noise(size: int, seed: int = 1, loudness: float = 0.1) -> Waveform:
    noise = np.random.default_rng(seed).standard_normal(size)
    return (loudness * (noise + np.sin(np.arange(size) / 5))).astype(np.float32)


def augment(algorithm: int, waveform: Waveform, seed: int = 1) -> Waveform:
    return RawBoost(algorithm)(waveform, np.random.default_rng(seed))


# The slow way, one notch, one power and one sample after the other, as the paper describes it.


def slow_cascade(centres: np.ndarray, widths: np.ndarray, taps: np.ndarray, gain_db: float) -> np.ndarray:
    cascade = np.ones(1)
    for centre, width, count in zip(centres, widths, taps, strict=True):
        edges = (max(centre - width / 2, 1e-3), min(centre + width / 2, SAMPLE_RATE_HZ / 2 - 1e-3))
        notch = signal.firwin(count + (count % 2 == 0), edges, window="hamming", fs=SAMPLE_RATE_HZ)
        cascade = np.convolve(cascade, notch)
    response = signal.freqz(cascade, worN=512)[1]
    return np.asarray(cascade * 10 ** (gain_db / 20) / np.abs(response).max())


def slow_filter(waveform: np.ndarray, taps: np.ndarray) -> np.ndarray:
    early = (taps.size + 1) // 2
    return np.convolve(np.append(waveform, 0.0), taps)[early : early + waveform.size]


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    shape = (count, 5)
    taps = generator.integers(10, 100, shape)
    return (
        generator.uniform(20, 8000, shape),
        generator.uniform(100, 1000, shape),
        taps,
        generator.uniform(-20, 0, count),
    )


@pytest.mark.parametrize("size", LENGTHS)
def test_filtering_all_powers_at_once_equals_filtering_one_after_the_other(size: int) -> None:
    waveform = tone_and_noise(size)
    centres, widths, taps, gains = drawn(5, seed=size)
    expected = np.zeros(size)
    for k, row in enumerate(zip(centres, widths, taps, gains, strict=True)):
        expected += slow_filter(waveform.astype(np.float64) ** (k + 1), slow_cascade(*row))
    found = filter_powers(waveform, cascades(centres, widths, taps, gains))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("taps", [1, 2, 3, 99, 100, 801])
def test_a_cascade_is_that_of_scipy_whatever_its_number_of_taps(taps: int) -> None:
    centres, widths = np.array([[20.0, 7999.0, 3000.0]]), np.array([[1000.0, 500.0, 100.0]])
    found = cascades(centres, widths, np.full((1, 3), taps), np.array([-6.0]))[0]
    expected = slow_cascade(centres[0], widths[0], np.full(3, taps), -6.0)
    padding = (found.size - expected.size) // 2
    np.testing.assert_allclose(found[padding : found.size - padding], expected, atol=3e-4 if taps == 801 else 1e-9)


def test_the_gain_of_a_cascade_is_that_of_its_peak() -> None:
    for taps, gain_db in zip(cascades(*drawn(20, seed=3)), drawn(20, seed=3)[3], strict=True):
        peak = np.abs(signal.freqz(taps, worN=4096)[1]).max()
        assert 20 * np.log10(peak) == pytest.approx(gain_db, abs=0.1)


def test_cascades_are_drawn_from_the_published_ranges() -> None:
    """100 notches 100 Hz wide between 3 and 4 kHz, of 99 taps: the rest of the spectrum passes."""
    ranges = NotchRanges(3, 3000, 4000, 100, 100, 98, 99)
    responses = [
        np.abs(signal.freqz(taps, worN=4096, fs=SAMPLE_RATE_HZ)[1])
        for taps in random_cascades(ranges, np.random.default_rng(1), [(0, 0)] * 30)
    ]
    depth = 1 - np.array(responses) / np.max(responses, axis=1, keepdims=True)
    hertz = np.linspace(0, SAMPLE_RATE_HZ / 2, 4096, endpoint=False)
    assert depth[:, (hertz < 2700) | (hertz > 4300)].max() < 0.05
    assert depth[:, (hertz > 3000) & (hertz < 4000)].mean() > 0.2


# (algorithm, what it is): which noises follow each other.
SERIES_TABLE = [
    (0, ()),
    (1, (convolutive_noise,)),
    (2, (impulsive_noise,)),
    (3, (coloured_noise,)),
    (4, (convolutive_noise, impulsive_noise, coloured_noise)),
    (5, (convolutive_noise, impulsive_noise)),
    (6, (convolutive_noise, coloured_noise)),
    (7, (impulsive_noise, coloured_noise)),
]


@pytest.mark.parametrize(("algorithm", "noises"), SERIES_TABLE)
def test_an_algorithm_is_its_noises_in_series(algorithm: int, noises: tuple[object, ...]) -> None:
    assert SERIES[algorithm] == noises


def test_algorithm_8_sums_convolutive_and_impulsive_noise_of_the_same_waveform() -> None:
    waveform, generator = tone_and_noise(3000), np.random.default_rng(1)
    expected = convolutive_noise(RawBoost(), waveform, generator) + impulsive_noise(RawBoost(), waveform, generator)
    expected /= max(1, np.abs(expected).max())
    np.testing.assert_array_equal(augment(8, waveform), expected)


def test_algorithm_0_changes_nothing() -> None:
    waveform = tone_and_noise(1000)
    np.testing.assert_array_equal(augment(0, waveform), waveform)


@pytest.mark.parametrize("algorithm", ALGORITHMS[1:])
def test_the_same_generator_gives_the_same_bits_and_another_one_others(algorithm: int) -> None:
    waveform = tone_and_noise(20_000)
    before = waveform.copy()
    np.testing.assert_array_equal(augment(algorithm, waveform, 1), augment(algorithm, waveform, 1))
    assert not np.array_equal(augment(algorithm, waveform, 1), augment(algorithm, waveform, 2))
    np.testing.assert_array_equal(waveform, before)


@pytest.mark.parametrize(("algorithm", "size"), list(itertools.product(ALGORITHMS, LENGTHS)))
def test_any_length_stays_what_it_is_finite_and_float32(algorithm: int, size: int) -> None:
    for waveform in (tone_and_noise(size), np.ones(size, np.float32), np.full(size, -1e-30, np.float32)):
        found = augment(algorithm, waveform)
        assert found.shape == (size,)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("algorithm", "size"), list(itertools.product(ALGORITHMS, LENGTHS)))
def test_silence_stays_silent(algorithm: int, size: int) -> None:
    np.testing.assert_array_equal(augment(algorithm, np.zeros(size, np.float32)), 0)


@pytest.mark.parametrize("algorithm", [1, 2, 5, 8])
def test_a_loud_waveform_is_brought_down_to_one(algorithm: int) -> None:
    found = augment(algorithm, tone_and_noise(20_000, loudness=3.0))
    assert np.abs(found).max() == pytest.approx(1.0, abs=1e-6)


def test_convolutive_noise_has_no_mean() -> None:
    assert abs(augment(1, tone_and_noise(20_000) + np.float32(0.3)).mean()) < 1e-6


def impulses(percent: float, seeds: int = 200, size: int = 4000) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the share of samples changed, in percent, and by what factor they were changed."""
    waveform = np.full(size, 0.1, np.float32)
    settings = RawBoost(2, max_percent=percent)
    for seed in range(seeds):
        ratio = settings(waveform, np.random.default_rng(seed)) / waveform - 1
        changed = np.abs(ratio) > 1e-6
        yield 100 * changed.mean(), ratio[changed]


def test_impulses_change_up_to_p_percent_of_the_samples_evenly() -> None:
    percents = np.array([percent for percent, _ in impulses(10)])
    assert percents.max() <= 10
    assert percents.mean() == pytest.approx(5, abs=0.6)  # 3 standard errors: 10 / sqrt(12 x 200)
    assert percents.std() == pytest.approx(10 / np.sqrt(12), abs=0.4)


def test_impulses_are_the_sample_times_the_product_of_two_even_draws() -> None:
    factors = np.concatenate([factors for _, factors in impulses(10)]) / 2
    assert np.abs(factors).max() <= 1
    assert factors.mean() == pytest.approx(0, abs=0.01)
    assert factors.var() == pytest.approx(1 / 9, abs=0.005)  # of u v, both even on [-1, 1]
    assert np.abs(factors).mean() == pytest.approx(1 / 4, abs=0.005)


def test_coloured_noise_has_a_ratio_even_between_its_limits_in_db() -> None:
    waveform = tone_and_noise(4000)
    ratios = []
    for seed in range(300):
        noise = augment(3, waveform, seed).astype(np.float64) - waveform
        ratios.append(20 * np.log10(np.linalg.norm(waveform) / np.linalg.norm(noise)))
    assert min(ratios) >= 10 and max(ratios) <= 40.01
    assert np.mean(ratios) == pytest.approx(25, abs=1.5)  # 3 standard errors
    assert np.std(ratios) == pytest.approx(30 / np.sqrt(12), abs=1)


def mean_spectrum_db(waveforms: list[np.ndarray]) -> np.ndarray:
    powers = [signal.welch(waveform, nperseg=64)[1] for waveform in waveforms]
    return np.asarray(10 * np.log10(np.mean(powers, axis=0)))[1:]


def test_the_mean_spectrum_of_convolutive_noise_is_that_of_the_slow_way() -> None:
    waveform = tone_and_noise(4000)
    slow = []
    for seed in range(150):
        generator = np.random.default_rng(10_000 + seed)
        total = np.zeros(waveform.size)
        for k in range(5):
            shape = 5
            taps = np.floor(generator.uniform(10, 100, shape)).astype(int)
            gain_db = 0.0 if k == 0 else -5 - 15 * generator.random()
            cascade = slow_cascade(
                generator.uniform(20, 8000, shape), generator.uniform(100, 1000, shape), taps, gain_db
            )
            total += slow_filter(waveform.astype(np.float64) ** (k + 1), cascade)
        slow.append(total - total.mean())
    fast = [augment(1, waveform, seed).astype(np.float64) for seed in range(150)]
    assert np.abs(mean_spectrum_db(fast) - mean_spectrum_db(slow)).max() < 1.0


def test_augmentation_is_a_function_of_seed_epoch_and_utterance() -> None:
    waveform = tone_and_noise(70_000)
    view = TrainingView(seed=7, augmentation=RawBoost(5))
    expected = fit_length(RawBoost(5)(waveform, generator_at("rawboost", 7, 2, "u1")))
    np.testing.assert_array_equal(view(waveform, 2, "u1"), expected)
    others = [view(waveform, 3, "u1"), view(waveform, 2, "u2"), dataclasses.replace(view, seed=8)(waveform, 2, "u1")]
    assert not any(np.array_equal(expected, other) for other in others)


def test_the_place_of_a_random_crop_does_not_depend_on_the_augmentation() -> None:
    ramp = np.linspace(0, 1, 100_000, dtype=np.float32)
    plain = TrainingView(seed=1, crop="random")(ramp, 1, "u")
    boosted = TrainingView(seed=1, crop="random", augmentation=RawBoost(2, impulse_gain=0.0))(ramp, 1, "u")
    np.testing.assert_array_equal(plain, boosted)


def test_a_short_utterance_is_augmented_before_it_is_repeated() -> None:
    seen = TrainingView(seed=1, augmentation=RawBoost(4))(tone_and_noise(10_000), 1, "u")
    np.testing.assert_array_equal(seen[:10_000], seen[10_000:20_000])


def test_validation_is_never_augmented() -> None:
    waveform = tone_and_noise(70_000)
    np.testing.assert_array_equal(validation_view(waveform, 1, "u"), waveform[:CROP_SAMPLES])


def test_every_flag_reaches_the_augmentation() -> None:
    given = Options(
        algo=4, nBands=1, minF=2, maxF=3, minBW=4, maxBW=5, minCoeff=6, maxCoeff=7, minG=8, maxG=9,
        minBiasLinNonLin=10, maxBiasLinNonLin=11, N_f=12, P=13, g_sd=14, SNRmin=15, SNRmax=16,
    )  # fmt: skip
    expected = RawBoost(4, NotchRanges(1, 2, 3, 4, 5, 6, 7, 8, 9), 12, 10, 11, 13, 14, 15, 16)
    assert rawboost_of(given) == expected
