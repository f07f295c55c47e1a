"""A smaller training part of the same proportions, drawn by the seed."""

from __future__ import annotations

from dataclasses import replace

from utils.corpora.parts import CorpusPart
from utils.corpora.trials import Protocol
from utils.errors import UserError
from utils.seeding import generator_at


def limit_examples(part: CorpusPart, num_examples: int, seed: int) -> CorpusPart:
    """Return `num_examples` trials of `part`, drawn by `seed`, in the protocol's order and proportion of classes.

    Each class keeps at least one trial. The protocol keeps the content hash of the whole file. Raises UserError for
    fewer than 2 examples or more than there are.
    """
    if not 2 <= num_examples <= len(part):
        raise UserError(
            f"--num_examples must be from 2 (one of each class) to {len(part)} "
            f"(the trials of {part.protocol.path}), found {num_examples}: pass a number in that range"
        )
    proportion = part.protocol.num_bona_fide / len(part)
    num_bona_fide = min(max(round(num_examples * proportion), 1), num_examples - 1)
    kept = sorted(
        _draw_positions(part.protocol, 1, num_bona_fide, seed)
        + _draw_positions(part.protocol, 0, num_examples - num_bona_fide, seed)
    )
    return replace(
        part,
        protocol=replace(part.protocol, trials=tuple(part.protocol.trials[index] for index in kept)),
        audio_paths=tuple(part.audio_paths[index] for index in kept),
    )


def _draw_positions(protocol: Protocol, label: int, count: int, seed: int) -> list[int]:
    positions = [index for index, found in enumerate(protocol.labels) if found == label]
    order = generator_at("examples", seed, label).permutation(len(positions))
    return [positions[index] for index in order[:count]]
