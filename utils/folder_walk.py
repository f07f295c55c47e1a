"""Goes through folders and all below them; a link to a folder is followed where that shows something new."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from utils.errors import UserError


class FolderWalk:
    """The files below some folders, without hidden ones: first those that really lie there, then those behind links.

    No folder is gone through twice, so that links in a circle end. After the walk `followed` and `passed_over` name the
    links to folders: passed over are those that lead to a folder that was seen, or to one that holds all of these. And
    `dead` names the links without a suffix that lead nowhere, as to a folder of a disk that is not there.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self.followed: list[str] = []
        self.passed_over: list[str] = []
        self.dead: list[str] = []
        self._links: deque[tuple[Path, str]] = deque()
        self._seen: set[tuple[int, int]] = set()

    def __iter__(self) -> Iterator[tuple[Path, str, list[str]]]:
        """Yield one of the folders, one that is it or lies below it, and the sorted names of the files there.

        Raises UserError where a folder cannot be looked into.
        """
        for folder in self._folders:
            yield from self._below(folder, str(folder))
        ends = [os.path.realpath(folder) for folder in self._folders]
        while self._links:
            folder, link = self._links.popleft()
            leads_to = os.path.realpath(link)
            is_above = any(os.path.commonpath([end, leads_to]) == leads_to for end in ends)
            if is_above or _identity(leads_to) in self._seen:
                self.passed_over.append(link)
            else:
                self.followed.append(link)
                yield from self._below(folder, link)

    def _below(self, folder: Path, top: str) -> Iterator[tuple[Path, str, list[str]]]:
        for parent, below, names in os.walk(top, onerror=_refuse):
            identity = _identity(parent)
            if identity in self._seen and parent != str(folder):
                below.clear()
                continue
            self._seen.add(identity)
            shown = sorted(name for name in below if not name.startswith("."))
            links = {name for name in shown if os.path.islink(_joined(parent, name))}  # noqa: PTH114
            self._links.extend((folder, _joined(parent, name)) for name in shown if name in links)
            below[:] = [name for name in shown if name not in links]
            files = sorted(name for name in names if not name.startswith("."))
            self.dead += [
                _joined(parent, name) for name in files if "." not in name and _is_dead(_joined(parent, name))
            ]
            yield folder, parent, files


def _joined(parent: str, name: str) -> str:
    return os.path.join(parent, name)  # noqa: PTH118 - a Path for each of many is slow


def _is_dead(path: str) -> bool:
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH110, PTH114


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename} cannot be looked into ({error.strerror}): pass another folder") from error
