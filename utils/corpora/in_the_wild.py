"""The layout of In-the-Wild: audio files 0.wav, 1.wav ... beside a meta.csv with the header `file,speaker,label`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from utils.corpora.parts import FoundCorpus, PartSource, Published
from utils.corpora.protocols import scan_protocol
from utils.corpora.tables import is_in_the_wild

LAYOUT = "In-the-Wild"
FOLDER = "release_in_the_wild"
LOOKED_FOR = f"{FOLDER}/meta.csv"
_PUBLISHED = Published(31_779, None, "")


def find(database: Path, protocols: Path | None) -> FoundCorpus | None:
    """Return the set in `database`, which holds meta.csv or is its parent; `protocols` may hold meta.csv instead."""
    for folder in (database, database / FOLDER):
        for meta in (folder / "meta.csv", *((protocols / "meta.csv",) if protocols else ())):
            if folder.is_dir() and meta.is_file() and is_in_the_wild(meta):
                part = PartSource("eval", partial(scan_protocol, meta), (folder,), _PUBLISHED)
                return FoundCorpus(LAYOUT, folder, (part,))
    return None
