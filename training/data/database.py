"""Which folder --database_path means: one on disk, or for `demo` that of the demo corpus."""

from __future__ import annotations

from pathlib import Path

from training.settings.options import DEMO_DATABASE
from utils.corpora.demo_corpus import demo_corpus_folder, demo_corpus_location


def database_folder(database_path: str) -> Path:
    """Return the folder of a corpus; the demo corpus is made on its first use, in some seconds."""
    return demo_corpus_folder() if database_path == DEMO_DATABASE else Path(database_path)


def demo_to_make(database_path: str) -> Path | None:
    """Return where `database_folder` would make the demo corpus; None where there is nothing to make."""
    location = demo_corpus_location()
    return location if database_path == DEMO_DATABASE and not location.is_dir() else None
