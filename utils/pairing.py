"""The batches of an epoch in which every spoof has its source beside it, as a function of seed and epoch alone.

Nothing is stored: a run that goes on in the middle of an epoch makes the same batches again.

**Every utterance once** (`families`): a source and all of its spoofs are a unit, any other utterance is one by itself.
A unit stays in one batch. Which sizes of units share a batch is laid out once, so that every epoch has the same number
of batches: the largest first, each into the fullest batch that has room. An epoch draws which units take these places
and the order of the batches. A batch that no unit fits into any more stays smaller than the others.

**As many of each class** (`pairs`): every spoof that has a source once, beside that source, which so comes as often as
it has spoofs. Spoofs without a source stand beside bona fide utterances without spoofs; of these two kinds the larger
comes once and the smaller again and again, in a new order each time. Where all bona fide utterances have spoofs, those
without a source stand beside any of them in turn.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from utils.seeding import Visit, generator_at

Unit = tuple[int, ...]
"""The indices of utterances that stay together."""
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Kin:
    """The utterances of a part by kin: `families` (a source, then its spoofs), and those without any, by class."""

    families: tuple[Unit, ...]
    other_bona_fide: tuple[int, ...]
    other_spoofs: tuple[int, ...]

    @classmethod
    def of(cls, are_bona_fide: Sequence[bool], sources: Sequence[int | None]) -> Kin:
        """Return them for the classes of utterances and the index of the source of each spoof, None for none.

        >>> Kin.of([True, False, True, False, False], [None, 0, None, 0, None])
        Kin(families=((0, 1, 3),), other_bona_fide=(2,), other_spoofs=(4,))
        """
        spoofs: dict[int, list[int]] = defaultdict(list)
        for index, source in enumerate(sources):
            if source is not None:
                spoofs[source].append(index)
        alone = [index for index, source in enumerate(sources) if source is None and index not in spoofs]
        return cls(
            tuple((source, *of_it) for source, of_it in sorted(spoofs.items())),
            tuple(index for index in alone if are_bona_fide[index]),
            tuple(index for index in alone if not are_bona_fide[index]),
        )

    @property
    def num_pairs(self) -> int:
        """How many spoofs have a source."""
        return sum(len(family) - 1 for family in self.families)


def families(kin: Kin, batch_size: int, seed: int, epoch: int) -> list[list[Visit]]:
    """Return the batches of `epoch` (from 1) in which every utterance comes once; no unit is larger than a batch.

    >>> kin = Kin.of([True, False, True, False, True], [None, 0, None, 0, None])
    >>> [sorted(index for index, _ in batch) for batch in families(kin, 4, seed=1, epoch=1)]
    [[2], [0, 1, 3, 4]]
    """
    units: dict[int, list[Unit]] = defaultdict(list)
    for unit in _units(kin):
        units[len(unit)].append(unit)
    drawn: dict[int, Iterator[Unit]] = {
        size: iter(_drawn(of_size, "families", seed, epoch, size)) for size, of_size in units.items()
    }
    places = _drawn(layout_of(kin, batch_size), "batches of families", seed, epoch, 0)
    return [[(index, 0) for size in sizes for index in next(drawn[size])] for sizes in places]


def layout_of(kin: Kin, batch_size: int) -> list[tuple[int, ...]]:
    """Return the sizes of the units of each batch: the largest first, each into the fullest batch that has room.

    >>> layout_of(Kin(((0, 1, 2), (3, 4, 5)), (6, 7, 8), ()), batch_size=4)
    [(3, 1), (3, 1), (1,)]
    """
    batches: list[list[int]] = []
    with_room: dict[int, deque[list[int]]] = defaultdict(deque)
    for size, count in sorted(Counter(map(len, _units(kin))).items(), reverse=True):
        for _ in range(count):
            room = next((room for room in range(size, batch_size) if with_room[room]), 0)
            batch = with_room[room].popleft() if room else []
            if not room:
                batches.append(batch)
            batch.append(size)
            with_room[(room or batch_size) - size].append(batch)
    return [tuple(batch) for batch in batches]


def pairs(kin: Kin, seed: int, epoch: int) -> list[Visit]:
    """Return the order of `epoch` (from 1): a bona fide utterance and a spoof in turn, made as the module says.

    >>> kin = Kin.of([True, False, False, True, False], [None, 0, 0, None, None])
    >>> pairs(kin, seed=1, epoch=1)
    [(0, 0), (1, 0), (3, 0), (4, 0), (0, 1), (2, 0)]
    """
    both = [(source, spoof) for source, *spoofs in kin.families for spoof in spoofs]
    bona_fide = kin.other_bona_fide or tuple(source for source, *_ in kin.families)
    count = num_other_pairs(kin)
    both += zip(
        _again("other bona fide", bona_fide, count, seed, epoch),
        _again("other spoofs", kin.other_spoofs, count, seed, epoch),
        strict=True,
    )
    visits: Counter[int] = Counter()
    order = []
    for index in chain.from_iterable(_drawn(both, "pairs", seed, epoch, 0)):
        order.append((index, visits[index]))
        visits[index] += 1
    return order


def num_other_pairs(kin: Kin) -> int:
    """How many pairs of an epoch are not a spoof and its source."""
    return max(len(kin.other_bona_fide), len(kin.other_spoofs)) if kin.other_spoofs else 0


def _units(kin: Kin) -> Iterator[Unit]:
    yield from kin.families
    yield from ((index,) for index in sorted((*kin.other_bona_fide, *kin.other_spoofs)))


def _again(name: str, indices: Sequence[int], count: int, seed: int, epoch: int) -> list[int]:
    """Return `count` of the indices: all of them, in a drawn order, again and again."""
    rounds = -(-count // len(indices)) if count else 0
    return [index for number in range(rounds) for index in _drawn(indices, name, seed, epoch, number)][:count]


def _drawn(items: Sequence[_Item], name: str, seed: int, epoch: int, number: int) -> list[_Item]:
    order = generator_at(name, seed, epoch, number).permutation(len(items))
    return [items[position] for position in order]
