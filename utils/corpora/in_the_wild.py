"""The layout of In-the-Wild: audio files 0.wav, 1.wav ... beside a meta.csv with the header `file,speaker,label`."""

from __future__ import annotations

from utils.corpora.parts import FoundCorpus, PartSource, Published
from utils.corpora.places import CorpusPlace
from utils.corpora.tables import is_in_the_wild

LAYOUT = "In-the-Wild"
FOLDER = "release_in_the_wild"
LOOKED_FOR = f"{FOLDER}/meta.csv"
_PUBLISHED = Published(31_779, None, "")


def find(place: CorpusPlace) -> FoundCorpus | None:
    """Return the set in `place`, which holds meta.csv or is its parent; `place.protocols` may hold meta.csv instead."""
    for folder in (place.database, place.database / FOLDER):
        for meta in (folder / "meta.csv", *((place.protocols / "meta.csv",) if place.protocols else ())):
            if folder.is_dir() and meta.is_file() and is_in_the_wild(meta):
                part = PartSource("eval", place.scanning(meta), (folder,), _PUBLISHED)
                return FoundCorpus(LAYOUT, folder, (part,))
    return None
