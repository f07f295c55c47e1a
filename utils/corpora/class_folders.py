"""Any corpus with a folder for each class, `bonafide/` and `spoof/`, at the top or in `train/`, `dev/` and `eval/`.

Other words of the field for the classes will do (`real/`, `Fake/`). All audio below them counts, that behind links to
folders too. The first folder below `spoof/` names the attack: `spoof/tacotron/a.wav`. Where only bona fide speech is
needed, its folder alone will do.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from utils.audio.finding import bare_name, is_audio, is_passed_over, passed_over_text
from utils.corpora.division import listing_sha256
from utils.corpora.parts import FoundCorpus, PartSource
from utils.corpora.places import CorpusPlace, first_folder, named
from utils.corpora.tables import PART_WORDS, divided_parts, files_named_as_tables, is_table
from utils.corpora.trials import NO_ATTACK, UNKNOWN, Fault, FaultKind, ScannedProtocol, Trial
from utils.folder_walk import FolderWalk
from utils.labels import LABEL_WORDS, LABELS, told_words
from utils.text_tables import few

_IsEnough = Callable[[Path], bool]
LAYOUT = "class-folder"
LOOKED_FOR = "bonafide/ and spoof/"
_DIVIDED = "a fifth of the files of each class is the development part, chosen by a hash of their names"


def find(place: CorpusPlace) -> FoundCorpus | None:
    """Return the corpus in `place`; None where it has not both folders, at the top or in one of its parts."""
    return _find(place.database, lambda top: _are_both(_by_words_of_the_challenges(top)))


def find_others(place: CorpusPlace) -> FoundCorpus | None:
    """Return the corpus whose folders have other words for the classes, in any case; None where tables lie beside them,
    which would say more than names of folders."""
    return None if find(place) else _find_beside_no_table(place, lambda top: _are_both(class_folders(top)))


def find_speech(place: CorpusPlace) -> FoundCorpus | None:
    """Return the corpus whose folders are named by a class, of which bona fide is one; None where tables lie beside."""
    return _find_beside_no_table(place, lambda top: any(class_folders(top).values()))


def _find_beside_no_table(place: CorpusPlace, is_enough: _IsEnough) -> FoundCorpus | None:
    has_tables = any(map(is_table, files_named_as_tables(place.database)))
    return None if has_tables else _find(place.database, is_enough)


def _find(database: Path, is_enough: _IsEnough) -> FoundCorpus | None:
    """Return the corpus of which one part at least has the classes that make it one; others may lack one of them."""
    tops = {name: first_folder(named(database, words)) for name, words in PART_WORDS.items()}
    has_parts = any(is_enough(top) for top in tops.values() if top)
    parts = [
        PartSource(name, partial(scan_folders, database, top), (database,))
        for name, top in tops.items()
        if has_parts and top and class_folders(top)
    ]
    found = FoundCorpus(LAYOUT, database, tuple(parts), "one folder for each part")
    if found.can_train:
        return found
    alone = next((top for top in (database, tops["train"]) if top and is_enough(top)), None)
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
    audio, passed_over = _audio_in(walk, database)
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
    notes = (*_unused_folders(top, folders), *_notes(folders, walk, passed_over))
    return ScannedProtocol(top, tuple(trials), tuple(names), tuple(faults), listing_sha256(names, trials), notes=notes)


def _audio_in(walk: FolderWalk, database: Path) -> tuple[dict[Path, list[str]], list[str]]:
    """Return the audio files of each folder, and the names of those that cannot be read here."""
    found: dict[Path, list[str]] = defaultdict(list)
    passed_over: list[str] = []
    for folder, where, names in walk:
        below = Path(where).relative_to(database).as_posix()
        found[folder] += [f"{below}/{name}" for name in names if is_audio(name)]
        passed_over += filter(is_passed_over, names)
    return found, passed_over


def _notes(folders: Mapping[Path, bool], walk: FolderWalk, unread: Sequence[str]) -> tuple[str, ...]:
    told = told_words("class folders", {folder.name: is_bona_fide for folder, is_bona_fide in folders.items()})
    followed = f"links to folders that were followed: {few(walk.followed)}" if walk.followed else ""
    passed_over = (
        f"links to folders that were not followed, since they lead to or above folders that were: "
        f"{few(walk.passed_over)}"
        if walk.passed_over
        else ""
    )
    dead = f"links that lead nowhere, so that what they led to is missing: {few(walk.dead)}" if walk.dead else ""
    return tuple(filter(None, (told, followed, passed_over, dead, passed_over_text(unread) if unread else "")))


def _unused_folders(top: Path, folders: Mapping[Path, bool]) -> tuple[str, ...]:
    """Tell of folders named by other words for the classes, beside those that count."""
    others = [folder.name for folder in named_by_class(top) if folder not in folders]
    used = " and ".join(folder.name for folder in folders)
    return (f"not used: the folders {few(others)}, since {used} are there",) if others else ()


def class_folders(top: Path) -> dict[Path, bool]:
    """Return the folders in `top` that are named by a class, and whether that is bona fide; {} where none is.

    The names of the challenges go first; where these are not both there, any word of the field counts, in any case.
    """
    first = _by_words_of_the_challenges(top)
    return first if _are_both(first) else named_by_class(top)


def _by_words_of_the_challenges(top: Path) -> dict[Path, bool]:
    return {top / word: is_bona_fide for word, is_bona_fide in LABELS.items() if (top / word).is_dir()}


def _are_both(folders: Mapping[Path, bool]) -> bool:
    return len(set(folders.values())) == 2


def named_by_class(top: Path) -> dict[Path, bool]:
    """Return the folders in `top` that are named by any word for a class."""
    try:
        words = sorted(name for name in os.listdir(top) if name.lower() in LABEL_WORDS)  # noqa: PTH208
    except OSError:
        return {}
    return {top / word: LABEL_WORDS[word.lower()] for word in words if (top / word).is_dir()}
