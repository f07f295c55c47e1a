"""Any corpus with a folder for each class, `bonafide/` and `spoof/`, at the top or in `train/`, `dev/` and `eval/`.

Other words of the field for the classes will do (`real/`, `Fake/`). All audio below them counts, that behind links to
folders too. The first folder below `spoof/` names the attack: `spoof/tacotron/a.wav`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

from utils.audio.finding import bare_name, is_audio
from utils.corpora.division import listing_sha256
from utils.corpora.parts import FoundCorpus, PartSource
from utils.corpora.places import CorpusPlace, first_folder
from utils.corpora.tables import PART_WORDS, divided_parts, files_named_as_tables, is_table
from utils.corpora.trials import NO_ATTACK, UNKNOWN, Fault, FaultKind, ScannedProtocol, Trial
from utils.folder_walk import FolderWalk
from utils.labels import LABEL_WORDS, LABELS, told_words
from utils.text_tables import few

_Classes = Callable[[Path], dict[Path, bool]]
LAYOUT = "class-folder"
LOOKED_FOR = "bonafide/ and spoof/"
_DIVIDED = "a fifth of the files of each class is the development part, chosen by a hash of their names"


def find(place: CorpusPlace) -> FoundCorpus | None:
    """Return the corpus in `place`; None where it has not both folders, at the top or in one of its parts."""
    return _find(place.database, _by_words_of_the_challenges)


def find_others(place: CorpusPlace) -> FoundCorpus | None:
    """Return the corpus whose folders have other words for the classes, in any case; None where tables lie beside them,
    which would say more than names of folders."""
    has_tables = any(map(is_table, files_named_as_tables(place.database)))
    return None if find(place) or has_tables else _find(place.database, class_folders)


def _find(database: Path, classes: _Classes) -> FoundCorpus | None:
    tops = {name: first_folder(database / word for word in words) for name, words in PART_WORDS.items()}
    parts = [
        PartSource(name, partial(scan_folders, database, top), (database,))
        for name, top in tops.items()
        if top and classes(top)
    ]
    found = FoundCorpus(LAYOUT, database, tuple(parts), "one folder for each part")
    if found.can_train:
        return found
    alone = next((top for top in (database, tops["train"]) if top and classes(top)), None)
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
    folders = class_folders(top)
    walk = FolderWalk(list(folders))
    audio = _audio_in(walk, database)
    for folder, is_bona_fide in folders.items():
        for name in sorted(audio[folder]):
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
    notes = _notes(folders, walk)
    return ScannedProtocol(top, tuple(trials), tuple(names), tuple(faults), listing_sha256(names, trials), notes=notes)


def _audio_in(walk: FolderWalk, database: Path) -> dict[Path, list[str]]:
    found: dict[Path, list[str]] = defaultdict(list)
    for folder, where, names in walk:
        below = Path(where).relative_to(database).as_posix()
        found[folder] += [f"{below}/{name}" for name in names if is_audio(name)]
    return found


def _notes(folders: Mapping[Path, bool], walk: FolderWalk) -> tuple[str, ...]:
    told = told_words("class folders", {folder.name: is_bona_fide for folder, is_bona_fide in folders.items()})
    followed = f"links to folders that were followed: {few(walk.followed)}" if walk.followed else ""
    passed_over = (
        f"links to folders that were not followed, since they lead to or above folders that were: "
        f"{few(walk.passed_over)}"
        if walk.passed_over
        else ""
    )
    return tuple(filter(None, (told, followed, passed_over)))


def class_folders(top: Path) -> dict[Path, bool]:
    """Return the folders in `top` that are named by a class, and whether that is bona fide; {} without both classes.

    The names of the challenges go first; where these are not there, any word of the field counts, in any case.
    """
    return _by_words_of_the_challenges(top) or _both(named_by_class(top))


def _by_words_of_the_challenges(top: Path) -> dict[Path, bool]:
    return _both({top / word: is_bona_fide for word, is_bona_fide in LABELS.items() if (top / word).is_dir()})


def _both(folders: dict[Path, bool]) -> dict[Path, bool]:
    return folders if len(set(folders.values())) == 2 else {}


def named_by_class(top: Path) -> dict[Path, bool]:
    """Return the folders in `top` that are named by any word for a class."""
    try:
        words = sorted(name for name in os.listdir(top) if name.lower() in LABEL_WORDS)  # noqa: PTH208
    except OSError:
        return {}
    return {top / word: LABEL_WORDS[word.lower()] for word in words if (top / word).is_dir()}
