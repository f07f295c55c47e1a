"""Where the second place of a run lies (--mirror FOLDER), and what may not be one. Changes nothing, needs no torch.

The mirror of models/RUN is FOLDER/RUN, and that of outputs/NAME/checkpoints/version_N is
FOLDER/NAME/checkpoints/version_N: a run folder like the first one. FOLDER itself is never made, since a disk that is
not mounted must not be taken for one that is.
"""

from __future__ import annotations

import os
from pathlib import Path

from training.runs.directory import VERSIONS_NAME, is_version
from utils.errors import EXIT_USAGE, UserError
from utils.folders import is_folder


def mirror_of(run_folder: Path, root: Path) -> Path:
    """Return the folder below `root` that mirrors a run folder.

    >>> str(mirror_of(Path("models/run"), Path("/mnt/disk")))
    '/mnt/disk/run'
    >>> str(mirror_of(Path("outputs/fractalgen/checkpoints/version_3"), Path("/mnt/disk")))
    '/mnt/disk/fractalgen/checkpoints/version_3'
    """
    if is_version(run_folder):
        return root / run_folder.parent.parent.name / VERSIONS_NAME / run_folder.name
    return root / run_folder.name


def refuse_bad_mirror(run_folder: Path, root: Path) -> None:
    """Raise UserError for a mirror that is the run folder, lies in it, or has it inside."""
    run, mirror = (Path(os.path.realpath(path)) for path in (run_folder, mirror_of(run_folder, root)))
    typed = Path(os.path.realpath(root))
    is_inside = typed.is_relative_to(run) or mirror.is_relative_to(run) or run.is_relative_to(mirror)
    if is_inside or _is_one_folder(run, mirror) or _is_one_folder(run.parent, mirror.parent):
        raise UserError(
            f"--mirror {root} lies in the run folder {run_folder}, or has it inside, and would be gone with it: pass a "
            "folder elsewhere, best on another disk",
            EXIT_USAGE,
        )
    if os.path.lexists(root) and not is_folder(root):
        raise UserError(f"--mirror {root} is no folder: pass a folder on another disk", EXIT_USAGE)


def _is_one_folder(one: Path, other: Path) -> bool:
    """Whether two paths lead to one folder, as a folder that is mounted at a second place has two."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def mirror_text(run_folder: Path, root: Path) -> str:
    """Say where a run is mirrored to, and what is wrong with that place, if anything is."""
    place = mirror_of(run_folder, root)
    if not is_folder(root):
        return f"{place}, once {root} is there: it does not exist now (make it, or mount its disk)"
    if _device(root) == _device(run_folder):
        return f"{place}, on the same disk as the run: both may be lost with it"
    return str(place)


def _device(path: Path) -> int | None:
    """Return the number of the disk that a path is on, or will be on."""
    for place in (path, *(Path.cwd() / path).parents):
        try:
            return place.stat().st_dev
        except OSError:
            continue
    return None
