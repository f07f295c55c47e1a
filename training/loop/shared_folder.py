"""Whether all processes of a run see one folder, as several machines must: the first writes a file, the others look."""

from __future__ import annotations

import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

from utils.atomic_files import make_folder
from utils.errors import UserError
from utils.ranks import Ranks

_BEGINNING = ".seen-by-all-"
_SEEN_WITHIN_S = 10.0  # network file systems remember for some seconds that a name was not there
_LOOK_EVERY_S = 0.2
_LEFT_AFTER_S = 3600.0  # a younger file is that of another run, which begins now too


def refuse_unshared_folder(folder: Path, ranks: Ranks) -> None:
    """Raise UserError, in all processes, where one of them does not see what the first writes into a folder."""
    if ranks.count == 1:
        return
    token = ranks.broadcast(lambda: _written(folder))
    try:
        own = f"{socket.gethostname()}, {Path.cwd()}"
        seen = ranks.gather("" if _is_seen(token) else own)
    finally:
        if ranks.is_first:
            token.unlink(missing_ok=True)
    for index, place in enumerate(seen):
        if place:
            raise UserError(
                f"process {index} ({place}) does not see what process 0 writes into {folder}: start all of them in one "
                "folder, on several machines one that they share"
            )


def _written(folder: Path) -> Path:
    """Write the file and return its name; what a killed process left of this goes after an hour."""
    try:
        make_folder(folder)
        for left in folder.glob(f"{_BEGINNING}*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _LEFT_AFTER_S:
                    left.unlink()
        token = folder / f"{_BEGINNING}{secrets.token_hex(8)}"
        token.write_bytes(b"")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}), and nothing was trained") from error
    return token


def _is_seen(token: Path) -> bool:
    until = time.monotonic() + _SEEN_WITHIN_S
    while not token.exists():
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_EVERY_S)
        with suppress(OSError):
            list(token.parent.iterdir())  # has the file system ask its server again
    return True
