"""One process scores into a file: a lock beside it, which is gone when the scoring ends."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from training.runs.lock import FileLock

SUFFIX = ".lock"


class ScoringLock(FileLock):
    """The lock of the score file `output`, held inside a `with` block, in a file of its own.

    The file is removed while the lock is still held. Somebody who had opened it before then holds a lock on nothing,
    which `__enter__` notices: it takes the lock of the file that has the name.
    """

    def __init__(self, output: Path) -> None:
        super().__init__(
            lock_path(output),
            busy=f"another process scores into {output}",
            advice="wait for it, stop it, or pass another --eval_output",
            unnoticed=f"that scores into {output} would not be noticed",
        )

    def __enter__(self) -> Self:
        """Take the lock; raises UserError that names the host and process which hold it, and OSError."""
        super().__enter__()
        while not self._is_in_place():
            self._let_go()
            super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_in_place():
            self._path.unlink(missing_ok=True)
        self._let_go()


def lock_path(output: Path) -> Path:
    """Return where the lock of a score file is.

    >>> lock_path(Path("scores.txt")).name
    'scores.txt.lock'
    """
    return output.with_name(output.name + SUFFIX)
