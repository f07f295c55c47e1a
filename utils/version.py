"""Which version of the program this is, as --version tells it and checkpoints keep it."""

from __future__ import annotations

import hashlib
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


def source_digest() -> str:
    """Return what tells this program's files from those of any other version: a hash of all of them."""
    root, digest = Path(__file__).parent.parent, hashlib.sha256()
    files = [root / "main.py", *(root / "models").glob("*.py")]
    files += [path for folder in ("training", "utils") for path in (root / folder).rglob("*.py")]
    for path in sorted(files):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
