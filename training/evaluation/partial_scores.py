"""The file that scores gather in while a set is scored, so that a stopped or killed run goes on where it was.

Its first line is a fingerprint of all that decides on the bits of the scores; each of the others is a name, a tab and a
score. What does not fit is not used: a fingerprint of something else, or a line that a crash left half written.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.atomic_files import atomic_write
from utils.regular_files import open_regular, open_to_append, read_regular
from utils.table_bytes import bytes_on_disk

SUFFIX = ".partial"
_MOST_BYTES = 1 << 30
_MOST_BYTES_OF_A_HEAD = 1 << 16
_HEAD = "# scores not complete yet, of "


@dataclass(frozen=True)
class PartialScores:
    """What the file at `path` is about: the `names` scored, in order, under one `fingerprint`, a line of text."""

    path: Path
    fingerprint: str
    names: Sequence[str]

    def read(self, batch_size: int) -> tuple[list[str], bool]:
        """Return the scores there are, as they were written, and whether the file belongs to something else.

        Only whole batches count, so that the batches that follow are those of a run that was never stopped.
        """
        try:
            lines = read_regular(self.path, _MOST_BYTES).decode(errors="surrogateescape").split("\n")
        except FileNotFoundError:
            return [], False
        if lines[0] != self._head:
            return [], True
        scores: list[str] = []
        for line in lines[1:-1][: len(self.names)]:  # the last one has no end
            name = self.names[len(scores)]
            found, _, score = line.rpartition("\t")
            if found != name or not _is_finite(score):
                break
            scores.append(score)
        if len(scores) < len(self.names):
            del scores[len(scores) // batch_size * batch_size :]
        return scores, False

    def begin(self, scores: Sequence[str]) -> None:
        """Write the file anew with the first `scores`; raises OSError."""
        with atomic_write(self.path) as file:
            file.write(bytes_on_disk(f"{self._head}\n{self.lines(0, scores)}"))

    def append(self, first: int, scores: Sequence[str]) -> None:
        """Add the scores of the names from `first` on; raises OSError. A power cut may take what is not synced yet."""
        with io.BufferedWriter(open_to_append(self.path)) as file:  # which writes on after a short write
            file.write(bytes_on_disk(self.lines(first, scores)))

    def lines(self, first: int, scores: Sequence[str]) -> str:
        """Return the lines of the names from `first` on."""
        named = zip(self.names[first : first + len(scores)], scores, strict=True)
        return "".join(f"{name}\t{score}\n" for name, score in named)

    def remove(self) -> None:
        """Take the file away once its scores are elsewhere."""
        self.path.unlink(missing_ok=True)

    def found_fingerprint(self) -> str:
        """Return the fingerprint that the file has, "" where it has none; raises OSError."""
        with open_regular(self.path) as file:
            line = file.readline(_MOST_BYTES_OF_A_HEAD).decode(errors="replace").rstrip("\n")
        return line.removeprefix(_HEAD) if line.startswith(_HEAD) else ""

    @property
    def _head(self) -> str:
        return _HEAD + self.fingerprint


def partial_path(output: Path) -> Path:
    """Return where the scores for `output` gather.

    >>> partial_path(Path("scores.txt")).name
    'scores.txt.partial'
    """
    return output.with_name(output.name + SUFFIX)


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
