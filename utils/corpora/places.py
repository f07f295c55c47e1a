"""What lies in a folder, for a message, and the first of several files that is there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def what_is_in(folder: Path) -> str:
    """Return up to six names in a folder, or what else it is."""
    if not folder.is_dir():
        return "a file" if folder.exists() else "no such folder"
    names = sorted(os.listdir(folder))  # noqa: PTH208 - names are all that is needed
    if not names:
        return "an empty folder"
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def first_file(candidates: Iterable[Path]) -> Path | None:
    """Return the first file that exists."""
    return next((path for path in candidates if path.is_file()), None)


def first_folder(candidates: Iterable[Path]) -> Path | None:
    """Return the first folder that exists."""
    return next((path for path in candidates if path.is_dir()), None)
