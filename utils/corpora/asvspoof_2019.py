"""The layout of ASVspoof 2019 LA, which any corpus may have: three audio folders and a folder of protocols.

The protocol decides. Files that it does not name (enrolment speech, for one) are ignored.
"""

from __future__ import annotations

from pathlib import Path

from utils.corpora.parts import WITHOUT_DATA, FoundCorpus, PartName, PartSource, Published
from utils.corpora.places import CorpusPlace, what_is_in
from utils.corpora.trial_columns import ASVSPOOF_2019
from utils.errors import UserError

LAYOUT = "ASVspoof 2019 LA"
LOOKED_FOR = "ASVspoof2019_LA_train/flac"
PROTOCOLS_FOLDER = "ASVspoof2019_LA_cm_protocols"
PROTOCOL_FILES: dict[PartName, str] = {
    "train": "ASVspoof2019.LA.cm.train.trn.txt",
    "dev": "ASVspoof2019.LA.cm.dev.trl.txt",
    "eval": "ASVspoof2019.LA.cm.eval.trl.txt",
}
# The evaluation plan of ASVspoof 2019; counted again in the files.
_PUBLISHED: dict[PartName, Published] = {
    "train": Published(25_380, 2_580, "LA_T_"),
    "dev": Published(24_844, 2_548, "LA_D_"),
    "eval": Published(71_237, 7_355, "LA_E_"),
}


def audio_folder(la_folder: Path, part: PartName) -> Path:
    """Return the folder of a part's audio, `ASVspoof2019_LA_<part>/flac` below the LA folder."""
    return la_folder / f"ASVspoof2019_LA_{part}" / "flac"


def find(place: CorpusPlace) -> FoundCorpus | None:
    """Return the corpus in `place`, the LA folder or its parent; None where it has no audio folder of this layout.

    `place.protocols` is the folder that holds the protocol files or a parent of it; without it they are looked for
    under the database. Raises UserError where they are in none of these.
    """
    for folder in (place.database, place.database / "LA"):
        if any(audio_folder(folder, name).is_dir() for name in PROTOCOL_FILES):
            where = _protocols_folder(folder, place.protocols)
            return FoundCorpus(LAYOUT, folder, tuple(_parts(place, folder, where)))
    return None


def _parts(place: CorpusPlace, folder: Path, protocols: Path) -> list[PartSource]:
    """Return train and dev, whether or not they are there, since training needs them, and eval where it is."""
    return [
        PartSource(
            name,
            place.scanning(protocols / file, ASVSPOOF_2019),
            (audio_folder(folder, name),),
            _PUBLISHED[name],
        )
        for name, file in PROTOCOL_FILES.items()
        if name != "eval" or (protocols / file).is_file()
    ]


def _protocols_folder(la_folder: Path, protocols: Path | None) -> Path:
    if protocols is None:
        looked_in, flag = la_folder, "the database has no protocols"
        candidates = [la_folder / PROTOCOLS_FOLDER]
    else:
        looked_in, flag = protocols, f"--protocols_path {protocols} has no protocols"
        candidates = [protocols, protocols / PROTOCOLS_FOLDER, protocols / "LA" / PROTOCOLS_FOLDER]
    for candidate in candidates:
        if any((candidate / name).is_file() for name in PROTOCOL_FILES.values()):
            return candidate
    raise UserError(
        f"{flag}: looked for {PROTOCOL_FILES['train']} in {' and in '.join(map(str, candidates))}, "
        f"found {what_is_in(looked_in)}: pass --protocols_path FOLDER, the one with the .txt files; {WITHOUT_DATA}"
    )
