"""What folders hold, asked such that one which may not be looked into stops nothing but what needs it."""

from __future__ import annotations

from pathlib import Path

from utils.errors import UserError


def is_folder(path: Path) -> bool:
    """Return whether a folder, or a link to one, lies at `path`; not where that cannot be seen."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; [] where there is none. Raises UserError where it cannot be read."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"the folder {folder} cannot be read ({reason}): look at its permissions") from error


def readable_names_in(folder: Path) -> list[str]:
    """Return the names in a folder that is nobody's business here, sorted; [] where it cannot be read, too."""
    try:
        return names_in(folder)
    except UserError:
        return []
