"""Randomness is a function of position."""

from __future__ import annotations

import pytest

from utils.seeding import derive_seed, epoch_order, generator_at


def test_a_seed_is_the_same_on_every_machine_and_version() -> None:
    """The first is `printf 'order\\x1fint:1234\\x1fint:1' | b2sum -l 64`, little-endian, without its lowest bit."""
    assert derive_seed("order", 1234, 1) == 2122745097067538241
    assert derive_seed("crop", 1234, 1, "LA_T_1138215") == 3506340642025670117


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (("order", 1, 2), ("crop", 1, 2), "the purpose"),
        (("order", 1, 2), ("order", 2, 2), "the seed"),
        (("order", 1, 2), ("order", 1, 3), "the epoch"),
        (("order", 1, 23), ("order", 12, 3), "digits do not run together"),
        (("crop", 1, "2"), ("crop", 1, 2), "a name is not a number"),
        (("crop", "a", "b"), ("crop", "ab"), "names do not run together"),
    ],
)
def test_a_seed_depends_on_every_part_of_the_position(
    one: tuple[str, int | str], other: tuple[str, int | str], reason: str
) -> None:
    assert derive_seed(*one) != derive_seed(*other), reason


def test_seeds_fit_into_the_63_bits_that_torch_takes() -> None:
    assert all(0 <= derive_seed("any", number) < 2**63 for number in range(1000))


def test_an_epoch_visits_every_utterance_once() -> None:
    assert sorted(epoch_order(seed=1, epoch=1, size=100)) == list(range(100))


def test_two_epochs_have_two_orders() -> None:
    assert epoch_order(seed=1, epoch=1, size=100) != epoch_order(seed=1, epoch=2, size=100)


def test_a_draw_does_not_depend_on_the_draws_before_it() -> None:
    expected = generator_at("crop", 1, 2, "b").random()
    generator_at("crop", 1, 2, "a").random(1000)
    assert generator_at("crop", 1, 2, "b").random() == expected
