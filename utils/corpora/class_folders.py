"""Any corpus with a folder for each class, `bonafide/` and `spoof/`, at the top or in `train/`, `dev/` and `eval/`.

All audio below them counts. The first folder below `spoof/` names the attack: `spoof/tacotron/a.wav`.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

from utils.audio.finding import bare_name, files_below, is_audio
from utils.corpora.division import listing_sha256
from utils.corpora.parts import FoundCorpus, PartSource
from utils.corpora.places import first_folder
from utils.corpora.tables import PART_WORDS, divided_parts
from utils.corpora.trial_columns import LABELS
from utils.corpora.trials import NO_ATTACK, UNKNOWN, Fault, FaultKind, ScannedProtocol, Trial

LAYOUT = "class-folder"
LOOKED_FOR = "bonafide/ and spoof/"
_DIVIDED = "a fifth of the files of each class is the development part, chosen by a hash of their names"


def find(database: Path, protocols: Path | None) -> FoundCorpus | None:  # noqa: ARG001 - a layout has both
    """Return the corpus in `database`; None where it has not both folders, at the top or in one of its parts."""
    tops = {name: first_folder(database / word for word in words) for name, words in PART_WORDS.items()}
    parts = [
        PartSource(name, partial(scan_folders, database, top), (database,))
        for name, top in tops.items()
        if top and _has_classes(top)
    ]
    found = FoundCorpus(LAYOUT, database, tuple(parts), "one folder for each part")
    if found.can_train:
        return found
    alone = next((top for top in (database, tops["train"]) if top and _has_classes(top)), None)
    if alone is None:
        return found if parts else None
    scan_all = cache(partial(scan_folders, database, alone))
    evaluation = tuple(part for part in parts if part.name == "eval")
    whole = PartSource("eval", scan_all, (database,))
    return FoundCorpus(LAYOUT, database, (*divided_parts(scan_all, (database,)), *evaluation), _DIVIDED, whole)


def scan_folders(database: Path, top: Path) -> ScannedProtocol:
    """Return every audio file below the class folders in `top`, sorted by its path, which is relative to `database`."""
    names: list[str] = []
    trials: list[Trial] = []
    faults: list[Fault] = []
    seen: set[str] = set()
    for folder, is_bona_fide in _class_folders(top):
        for name in _audio_below(folder, database):
            utterance = bare_name(name)
            if utterance in seen:
                message = f"{database / name}: an utterance may have only one file: remove one of those of this name"
                faults.append(Fault(FaultKind.DOUBLED, message, name))
                continue
            seen.add(utterance)
            below = Path(database, name).relative_to(folder).parts
            attack = below[0] if len(below) > 1 and not is_bona_fide else NO_ATTACK
            names.append(name)
            trials.append(Trial(UNKNOWN, utterance, attack, is_bona_fide))
    return ScannedProtocol(top, tuple(trials), tuple(names), tuple(faults), listing_sha256(names, trials))


def _audio_below(folder: Path, database: Path) -> list[str]:
    found = []
    for where, names in files_below(folder):
        below = Path(where).relative_to(database).as_posix()
        found += [f"{below}/{name}" for name in names if is_audio(name)]
    return sorted(found)


def _class_folders(top: Path) -> list[tuple[Path, bool]]:
    return [(top / word, is_bona_fide) for word, is_bona_fide in LABELS.items() if (top / word).is_dir()]


def _has_classes(top: Path) -> bool:
    return {is_bona_fide for _, is_bona_fide in _class_folders(top)} == {True, False}
