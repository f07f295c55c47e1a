"""Randomness as a function of position: a seed for every (purpose, seed, epoch, utterance, ...), with no state to save.

No draw depends on the draws before it, so the position of a run alone restores its data stream, for any number of
worker processes and with no replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

Visit = tuple[int, int]
"""An utterance's index, and how often it has come in this epoch before."""


def derive_seed(purpose: str, *position: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on nothing but its arguments, on every machine and Python version.

    `purpose` keeps streams apart that share a position: the order of an epoch and its augmentation, say.

    >>> derive_seed("order", 1234, 1) == derive_seed("order", 1234, 1)
    True
    >>> derive_seed("order", 1234, 1) == derive_seed("order", 1234, 2)
    False
    """
    text = "\x1f".join([purpose, *(f"{type(part).__name__}:{part}" for part in position)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_at(purpose: str, *position: int | str) -> np.random.Generator:
    """Return a NumPy generator for one purpose at one position, such as ("crop", seed, epoch, utterance)."""
    return np.random.Generator(np.random.PCG64(derive_seed(purpose, *position)))


def epoch_order(seed: int, epoch: int, size: int) -> list[int]:
    """Return the order in which epoch `epoch` (counted from 1) visits `size` training utterances.

    >>> sorted(epoch_order(seed=1234, epoch=1, size=5))
    [0, 1, 2, 3, 4]
    """
    return [int(index) for index in generator_at("order", seed, epoch).permutation(size)]


def balanced_order(seed: int, epoch: int, are_bona_fide: Sequence[bool]) -> list[Visit]:
    """Return the order in which epoch `epoch` (from 1) visits utterances, one of each class in turn.

    Every utterance of the larger class comes once. The smaller class is gone through again and again, in a new order
    each time, until it has come as often: each of its utterances k or k + 1 times. Both classes must be there.

    >>> order = balanced_order(seed=1234, epoch=1, are_bona_fide=[False, False, False, True, False])
    >>> sorted(order[0::2]), order[1::2]
    ([(0, 0), (1, 0), (2, 0), (4, 0)], [(3, 0), (3, 1), (3, 2), (3, 3)])
    """
    classes = [[index for index, is_so in enumerate(are_bona_fide) if is_so is which] for which in (True, False)]
    smaller, larger = sorted(classes, key=len)
    rounds = -(-len(larger) // len(smaller))
    again = [(index, visit) for visit in range(rounds) for index in _drawn(smaller, seed, epoch, "smaller", visit)]
    once = [(index, 0) for index in _drawn(larger, seed, epoch, "larger", 0)]
    return [visit for pair in zip(once, again[: len(once)], strict=True) for visit in pair]


def _drawn(indices: Sequence[int], seed: int, epoch: int, class_name: str, visit: int) -> list[int]:
    order = generator_at("balanced order", seed, epoch, class_name, visit).permutation(len(indices))
    return [indices[position] for position in order]
