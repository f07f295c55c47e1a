"""Which corpus the settings name: one on disk, or for `demo` the demo corpus."""

from __future__ import annotations

from pathlib import Path

from training.settings.data import DEMO_DATABASE
from training.settings.options import Options
from utils.corpora.demo_corpus import demo_corpus_folder, demo_corpus_location
from utils.corpora.places import CorpusPlace


def corpus_place(options: Options) -> CorpusPlace:
    """Return where the corpus of a run is looked for; the demo corpus is made on its first use, in some seconds."""
    protocols = Path(options.protocols_path) if options.protocols_path else None
    return CorpusPlace(database_folder(options.database_path), protocols, options.label_1)


def database_folder(database_path: str) -> Path:
    """Return the folder of a corpus; the demo corpus is made on its first use, in some seconds."""
    return demo_corpus_folder() if database_path == DEMO_DATABASE else Path(database_path)


def demo_to_make(database_path: str) -> Path | None:
    """Return where `database_folder` would make the demo corpus; None where there is nothing to make."""
    location = demo_corpus_location()
    return location if database_path == DEMO_DATABASE and not location.is_dir() else None
