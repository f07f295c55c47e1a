"""Some trials of a part: fewer in the same proportions, drawn by the seed, or its bona fide speech."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from utils.corpora.parts import CorpusPart
from utils.corpora.trials import Protocol, sources_of
from utils.errors import UserError
from utils.seeding import generator_at


def limit_examples(part: CorpusPart, num_examples: int, seed: int, *, with_sources: bool = False) -> CorpusPart:
    """Return `num_examples` trials of `part`, drawn by `seed`, in the protocol's order and proportion of classes.

    Each class that is there keeps at least one trial. Or, `with_sources`, a bona fide trial and all spoofs that were
    made of it are drawn together, of the last of these as many as there is room for, the source first. The protocol
    keeps the content hash of the whole file. Raises UserError for fewer than 2 examples or more than there are.
    """
    if not 2 <= num_examples <= len(part):
        raise UserError(
            f"--num_examples must be from 2 (one of each class) to {len(part)} "
            f"(the trials of {part.protocol.path}), found {num_examples}: pass a number in that range"
        )
    if with_sources:
        return _part_of(part, sorted(_draw_families(part.protocol, num_examples, seed)))
    proportion = part.protocol.num_bona_fide / len(part)
    num_bona_fide = round(num_examples * proportion)
    if 0 < proportion < 1:
        num_bona_fide = min(max(num_bona_fide, 1), num_examples - 1)
    kept = sorted(
        _draw_positions(part.protocol, 1, num_bona_fide, seed)
        + _draw_positions(part.protocol, 0, num_examples - num_bona_fide, seed)
    )
    return _part_of(part, kept)


def bona_fide_of(part: CorpusPart) -> CorpusPart:
    """Return the bona fide trials of `part`, in the protocol's order; its content hash stays that of the whole file.

    Raises UserError where there is none.
    """
    kept = [index for index, trial in enumerate(part.protocol.trials) if trial.is_bona_fide]
    if not kept:
        raise UserError(
            f"{part.protocol.path}: none of its {len(part)} trials is bona fide speech: pass another corpus"
        )
    return _part_of(part, kept)


def _part_of(part: CorpusPart, kept: Sequence[int]) -> CorpusPart:
    return replace(
        part,
        protocol=replace(part.protocol, trials=tuple(part.protocol.trials[index] for index in kept)),
        audio_paths=tuple(part.audio_paths[index] for index in kept),
    )


def _draw_families(protocol: Protocol, count: int, seed: int) -> list[int]:
    families: dict[int, list[int]] = defaultdict(list)
    for index, source in enumerate(sources_of(protocol.trials)):
        if source is None:
            families[index].insert(0, index)
        else:
            families[source].append(index)
    each = [families[first] for first in sorted(families)]
    order = generator_at("examples with sources", seed).permutation(len(each))
    return [index for position in order for index in each[position]][:count]


def _draw_positions(protocol: Protocol, label: int, count: int, seed: int) -> list[int]:
    positions = [index for index, found in enumerate(protocol.labels) if found == label]
    order = generator_at("examples", seed, label).permutation(len(positions))
    return [positions[index] for index in order[:count]]
