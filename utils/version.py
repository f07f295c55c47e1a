"""Which version of the program this is, as --version tells it and checkpoints keep it."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

PROGRAM = "bonafide"
VERSION = "0.1.0"
_NAMED_PACKAGES = ("torch", "torchvision", "transformers", "numpy")


def version_text() -> str:
    """Return what a report of a defect should begin with: the version, its commit, Python and the main packages."""
    commit = git_commit()
    packages = ", ".join(f"{name} {_installed(name)}" for name in _NAMED_PACKAGES)
    return (
        f"bonafide {VERSION}{f', commit {commit[:12]}' if commit else ''}\n"
        f"Python {platform.python_version()}, {packages}; {platform.platform(terse=True)}"
    )


def git_commit() -> str | None:
    """Return the commit of this program's source, None where it is no git checkout or git is missing."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
