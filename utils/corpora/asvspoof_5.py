"""The layout of ASVspoof 5: flac_T, flac_D, flac_E_eval, and files of track 1 named .tsv but divided by spaces."""

from __future__ import annotations

from pathlib import Path

from utils.corpora.parts import FoundCorpus, PartName, PartSource
from utils.corpora.places import CorpusPlace, first_file
from utils.corpora.trial_columns import ASVSPOOF_5

LAYOUT = "ASVspoof 5"
LOOKED_FOR = "ASVspoof5.train.tsv"
_FILES: dict[PartName, str] = {
    "train": "ASVspoof5.train.tsv",
    "dev": "ASVspoof5.dev.track_1.tsv",
    "eval": "ASVspoof5.eval.track_1.tsv",
}
_AUDIO: dict[PartName, tuple[str, ...]] = {
    "train": ("flac_T",),
    "dev": ("flac_D",),
    "eval": ("flac_E_eval", "flac_E_prog", "flac_E"),
}
_PROTOCOLS_FOLDERS = ("", "ASVspoof5_protocols", "protocols")


def find(place: CorpusPlace) -> FoundCorpus | None:
    """Return the corpus in `place`, or in its folder ASVspoof5; None where it has no audio folder of this layout.

    The `.tsv` files may lie beside the audio, in ASVspoof5_protocols/ or protocols/ there, or in `place.protocols`.
    """
    for folder in (place.database, place.database / "ASVspoof5"):
        if not any((folder / name).is_dir() for names in _AUDIO.values() for name in names):
            continue
        bases = [base / name for base in (place.protocols, folder) if base for name in _PROTOCOLS_FOLDERS]
        found = {name: first_file(base / file for base in bases) for name, file in _FILES.items()}
        if not any(found.values()):
            continue
        parts = [
            PartSource(name, place.scanning(found[name] or bases[0] / file, ASVSPOOF_5), _folders(folder, name))
            for name, file in _FILES.items()
            if name != "eval" or found[name]
        ]
        return FoundCorpus(LAYOUT, folder, tuple(parts))
    return None


def _folders(folder: Path, name: PartName) -> tuple[Path, ...]:
    there = tuple(folder / below for below in _AUDIO[name] if (folder / below).is_dir())
    return there or (folder / _AUDIO[name][0],)
