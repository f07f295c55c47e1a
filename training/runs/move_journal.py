"""The journal of a move that is under way: what it says is read here alone, and believed only where it makes sense.

It stands in the run folder as JSON: the `version` that things go to, the `entries` of the run folder that do, and the
`log_entries` of its logs. A name that leads out of these folders would move what belongs to another run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from training.runs.directory import LOCK_NAME, MOVE_JOURNAL_NAME, version_number
from utils.atomic_files import write_text_atomically
from utils.errors import UserError
from utils.regular_files import read_regular
from utils.stored_values import Check, OddValueError, is_count, is_entry_name, is_list_of, plain_json, require

CANNOT_BE_USED = "cannot be used"
_MOST_BYTES = 1 << 24
_MOST_VERSIONS = 1_000_000


def _stays(name: object) -> bool:
    return name in (LOCK_NAME, MOVE_JOURNAL_NAME) or (isinstance(name, str) and version_number(name) is not None)


_can_move = is_list_of(lambda value: is_entry_name(value) and not _stays(value))
_STORED: Mapping[str, Check] = {
    "version": lambda value: is_count(value) and 0 < value <= _MOST_VERSIONS,
    "entries": _can_move,
    "log_entries": _can_move,
}


@dataclass(frozen=True)
class MoveJournal:
    """What moves into the version_N folders, N = `version`: names in the run folder, and names among its logs."""

    version: int
    entries: tuple[str, ...]
    log_entries: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write it into a run folder, durably; raises OSError."""
        write_text_atomically(folder / MOVE_JOURNAL_NAME, json.dumps(asdict(self), indent=1))


def read_move_journal(folder: Path) -> MoveJournal | None:
    """Return the journal in a run folder; None where there is none. Raises UserError for one that makes no sense."""
    path = folder / MOVE_JOURNAL_NAME
    try:
        stored = plain_json(read_regular(path, _MOST_BYTES))
        require(stored, _STORED)
    except FileNotFoundError:
        return None
    except (OSError, OddValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(
            f"{path} {CANNOT_BE_USED}: it says what is being moved aside, and is damaged ({reason}): look what of "
            f"{folder} is in its newest version_N folder, move the rest there by hand, and remove that file"
        ) from error
    return MoveJournal(stored["version"], tuple(stored["entries"]), tuple(stored["log_entries"]))
