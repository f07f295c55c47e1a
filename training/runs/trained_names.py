"""Which utterances a run was trained on, by name: a small file beside its checkpoints, which no checkpoint needs.

It holds a 64-bit hash of each name, sorted, and the SHA-256 of these. A name is that of the protocol, so that a corpus
may lie anywhere; two corpora that both have a `1.wav` share that name. Without the file, or where it is damaged, it is
not known what was trained on, and nothing else is lost. The first line says so where a run began with weights of which
it is not known.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils.atomic_files import atomic_write
from utils.regular_files import read_regular

FILE_NAME = "trained_names.bin"
_BEGINNING = b"names trained on, format 1\n"
_BEGINNING_OF_SOME = b"names trained on since the weights that it began with, format 1\n"
_HASH_BYTES = 8
_SEAL_BYTES = 32
_MOST_BYTES = 1 << 28  # 33 million names


@dataclass(frozen=True)
class TrainedNames:
    """The hashes of the names that were trained on, each once, sorted; `are_all` says that there are no others.

    There may be others where a run began with weights of which it is not known what they were trained on.

    >>> names = TrainedNames.of(["LA_T_1", "LA_T_2"])
    >>> names.count(["LA_T_2", "LA_E_1"]), names.joined(TrainedNames.of(["LA_E_1"])).count(["LA_T_2", "LA_E_1"])
    (1, 2)
    """

    hashes: tuple[bytes, ...]
    are_all: bool = True

    @classmethod
    def of(cls, names: Iterable[str]) -> TrainedNames:
        """Return the hashes of these names."""
        return cls(tuple(sorted({_hash(name) for name in names})))

    def joined(self, other: TrainedNames) -> TrainedNames:
        """Return what is in either."""
        return TrainedNames(tuple(sorted({*self.hashes, *other.hashes})), self.are_all and other.are_all)

    def and_others(self) -> TrainedNames:
        """Return the same names as some of those that were trained on."""
        return TrainedNames(self.hashes, are_all=False)

    def count(self, names: Iterable[str]) -> int:
        """Return how many of these names were trained on."""
        return sum(map(self._has, names))

    def _has(self, name: str) -> bool:
        wanted = _hash(name)
        place = bisect_left(self.hashes, wanted)
        return place < len(self.hashes) and self.hashes[place] == wanted


def write_trained_names(folder: Path, names: TrainedNames) -> None:
    """Write the file into a run folder, whole or not at all, unless it is there already; raises OSError."""
    if read_trained_names(folder) == names:
        return
    content = (_BEGINNING if names.are_all else _BEGINNING_OF_SOME) + b"".join(names.hashes)
    with atomic_write(folder / FILE_NAME) as file:
        file.write(content + hashlib.sha256(content).digest())


def read_trained_names(folder: Path) -> TrainedNames | None:
    """Return what the checkpoints in a folder were trained on; None where the file is missing or not as written."""
    try:
        stored = read_regular(folder / FILE_NAME, _MOST_BYTES)
    except OSError:
        return None
    content, seal = stored[:-_SEAL_BYTES], stored[-_SEAL_BYTES:]
    beginning = next((line for line in (_BEGINNING, _BEGINNING_OF_SOME) if content.startswith(line)), None)
    if hashlib.sha256(content).digest() != seal or beginning is None or (len(content) - len(beginning)) % _HASH_BYTES:
        return None
    starts = range(len(beginning), len(content), _HASH_BYTES)
    return TrainedNames(tuple(content[at : at + _HASH_BYTES] for at in starts), beginning == _BEGINNING)


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
