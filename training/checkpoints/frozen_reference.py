"""How a checkpoint refers to weights that training never changes, and where the file with them is. No torch needed.

With --freeze_ssl the front-end is written once per run, into a file named for its content, and each checkpoint says
which one it needs. The file is looked for beside the checkpoint, in the folder around that (a run that was moved aside
in part left it there), and in the version_N folders of both (it was moved aside with a later part of the run).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.sealed_file import broken_seal, read_record
from training.settings.name_template import FROZEN
from utils.stored_values import is_count, is_text, require, shown
from utils.terminal_text import bytes_text

FROZEN_KIND = "frozen"
WEIGHTS_KEY, FROZEN_KEY = "model_state_dict", "frozen_weights"
"""The keys of a payload under which its weights are, and its reference to those that are in another file."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FrozenReference:
    """The frozen weights that a checkpoint needs: their file's name, the hash and the bytes of their content.

    >>> FrozenReference.of("ab" * 32, 4).file
    'frozen_abababababababab.pth'
    """

    file: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, sha256: str, size: int) -> FrozenReference:
        """Return the reference to weights with this content; raises ValueError where that is no hash."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"no SHA-256: {shown(sha256)}")
        return cls(f"{FROZEN}{sha256[:16]}.pth", sha256, int(size))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FrozenReference:
        """Rebuild a reference from a record; raises ValueError where it makes no sense."""
        require(stored, {"sha256": is_text, "bytes": is_count})
        return cls.of(stored["sha256"], stored["bytes"])

    def as_dict(self) -> dict[str, Any]:
        """Return what a record holds."""
        return asdict(self)


@dataclass(frozen=True)
class FrozenFile:
    """A file of frozen weights, which checkpoints refer to; nothing can start from it or resume."""

    path: Path
    bytes_on_disk: int
    sha256: str


def frozen_file_from_dict(stored: Mapping[str, Any], path: Path, bytes_on_disk: int) -> FrozenFile:
    """Rebuild the facts of a file of frozen weights; raises BadCheckpointFileError."""
    sha256 = stored.get("sha256")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise BadCheckpointFileError("its record names no content")
    return FrozenFile(path, bytes_on_disk, sha256)


def find_frozen(checkpoint: Path, needed: FrozenReference) -> Path:
    """Return the file with the weights that `checkpoint` needs, as far as its record tells (see `broken_frozen`).

    Raises BadCheckpointFileError that names the file, its size and where it was looked for.
    """
    near = _near_folders(checkpoint)
    complaints = []
    versions = [version for folder in near for version in sorted(folder.glob("version_*"))]
    for folder in (*near, *versions):
        path = folder / needed.file
        if not os.path.lexists(path):
            continue
        try:
            record = read_record(path) or {}
        except BadCheckpointFileError as error:
            complaints.append(f"{path}: {error}")
            continue
        if record.get("kind") == FROZEN_KIND and record.get("sha256") == needed.sha256:
            return path
        complaints.append(f"{path}: it holds something else")
    what = f"the frozen weights that it needs, {needed.file} ({bytes_text(needed.bytes)})"
    if complaints:
        raise BadCheckpointFileError(f"{what}, cannot be used: {'; '.join(complaints)}")
    raise BadCheckpointFileError(
        f"{what}, are missing: looked in {' and '.join(map(str, near))}; copy that file beside it"
    )


def _near_folders(checkpoint: Path) -> list[Path]:
    """Return the folder of a checkpoint and the one around it; for a link, those of what it leads to as well."""
    found: dict[Path, None] = {}
    for folder in (checkpoint.parent, checkpoint.resolve().parent):
        around = folder.parent if folder.name not in ("", "..") else folder.resolve().parent
        same = any(known.resolve() == folder.resolve() for known in found)
        found |= {} if same else {folder: None, around: None}
    return list(found)


def broken_frozen(checkpoint: Path, needed: FrozenReference | None) -> str | None:
    """Read all of the frozen weights that a checkpoint needs and return what is wrong with them, None for nothing."""
    if needed is None:
        return None
    try:
        path = find_frozen(checkpoint, needed)
    except BadCheckpointFileError as error:
        return str(error)
    damage = broken_seal(path)
    return f"the frozen weights that it needs, {path}, are damaged: {damage}" if damage else None
