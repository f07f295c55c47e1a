"""Randomness as a function of position: a seed for every (purpose, seed, epoch, utterance, ...), with no state to save.

No draw depends on the draws before it, so the position of a run alone restores its data stream, for any number of
worker processes and with no replay.
"""

from __future__ import annotations

import hashlib

import numpy as np


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
