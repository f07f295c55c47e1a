"""Finds a corpus: recognises its layout on disk and opens what training or evaluation needs of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from utils.corpora import asvspoof_5, asvspoof_2019, asvspoof_2021, class_folders, in_the_wild, tables
from utils.corpora.parts import (
    WITHOUT_DATA,
    CorpusPart,
    FoundCorpus,
    PartSource,
    open_part,
    open_training_part,
)
from utils.corpora.places import CorpusPlace, why_unread
from utils.corpora.subsets import chosen_subset
from utils.corpora.trial_columns import headed_columns
from utils.corpora.unknown import the_one_thing, what_was_found
from utils.errors import UserError

_Find = Callable[[CorpusPlace], FoundCorpus | None]

_OWN_OTHERS: tuple[_Find, ...] = (tables.find_others, class_folders.find_others)
"""Beside a corpus in any other layout these are no corpus, but what somebody noted of that one."""
_OWN_LAYOUTS: tuple[_Find, ...] = (tables.find, class_folders.find, *_OWN_OTHERS)
TRAINING_LAYOUTS: tuple[_Find, ...] = (
    asvspoof_2019.find,
    asvspoof_5.find,
    *_OWN_LAYOUTS,
)
_SPEECH_LAYOUTS: tuple[_Find, ...] = (class_folders.find_speech,)
"""Those, after all others, that have bona fide speech alone."""
_EVALUATION_SETS: Mapping[str, _Find] = {
    "LA": partial(asvspoof_2021.find, track="LA"),
    "DF": partial(asvspoof_2021.find, track="DF"),
    "In-the-Wild": in_the_wild.find,
}
"""By the track whose figures they give."""

_LOOKED_FOR = (
    asvspoof_2019.LOOKED_FOR,
    asvspoof_5.LOOKED_FOR,
    tables.LOOKED_FOR,
    class_folders.LOOKED_FOR,
)
_LOOKED_FOR_SETS = (asvspoof_2021.LOOKED_FOR, in_the_wild.LOOKED_FOR)
_LOOKED_FOR_EVAL = (asvspoof_2019.PROTOCOL_FILES["eval"], "ASVspoof5.eval.track_1.tsv", "eval.csv", "eval/bonafide/")


@dataclass(frozen=True)
class Corpus:
    """A corpus that can be trained on, its training and development parts opened and complete.

    `layout` names what it was recognised as, `division` how the two parts came about, "" where they are published.
    """

    layout: str
    folder: Path
    train: CorpusPart
    dev: CorpusPart
    division: str = ""

    @property
    def identity(self) -> dict[str, str]:
        """What the data are, wherever they lie: the content hashes of the two parts' protocols."""
        return {"train": self.train.protocol.content_sha256, "dev": self.dev.protocol.content_sha256}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken over in reading the two parts, each once."""
        return tuple(dict.fromkeys((*self.train.protocol.notes, *self.dev.protocol.notes)))


def find_corpus(
    database_path: Path, protocols_path: Path | None = None, label_1: str | None = None, *, needs_spoofs: bool = True
) -> Corpus:
    """Open the training and development parts of a corpus and check that all their audio is there.

    `database_path` is the folder of the corpus, or its parent for a published one; `protocols_path` the folder that
    holds the protocol files, or a table `path,label`; `label_1` the class that labels of 0 and 1 write as 1, "spoof" or
    "bonafide", None where nobody said it. Unless it `needs_spoofs`, a part may have bona fide speech alone. Raises
    UserError where no layout is recognised, where the set is for evaluation only, and where a protocol or any of the
    audio files is missing.
    """
    found = find_training_layout(CorpusPlace(database_path, protocols_path, label_1), needs_spoofs=needs_spoofs)
    train, dev = found.part("train"), found.part("dev")
    assert train is not None and dev is not None
    return Corpus(
        layout=found.layout,
        folder=found.folder,
        train=open_training_part(train, found.layout, needs_spoofs=needs_spoofs),
        dev=open_training_part(dev, found.layout, needs_spoofs=needs_spoofs),
        division=found.division,
    )


def find_training_layout(place: CorpusPlace, *, needs_spoofs: bool = True) -> FoundCorpus:
    """Recognise a corpus that has a training and a development part; raises UserError where there is none."""
    _check_protocols(place.protocols)
    layouts = TRAINING_LAYOUTS if needs_spoofs else (*TRAINING_LAYOUTS, *_SPEECH_LAYOUTS)
    for find in (tables.find,) if _is_file(place.protocols) else layouts:
        found = find(place)
        if found and found.can_train:
            return found
    for find in _EVALUATION_SETS.values():
        found = find(place)
        if found:
            raise UserError(
                f"--database_path {place.database} holds {found.layout}, a set for evaluation without a training and a "
                f"development part: train on another corpus, such as ASVspoof 2019 LA; {WITHOUT_DATA}"
            )
    raise _not_recognised(place, _LOOKED_FOR)


def find_evaluation_part(
    database_path: Path,
    protocols_path: Path | None = None,
    track: str = "DF",
    subset: str | None = None,
    trained_on: Mapping[str, str] = MappingProxyType({}),
    *,
    label_1: str | None = None,
    needs_spoofs: bool = True,
) -> CorpusPart:
    """Open the part of a corpus that a detector is to be evaluated on, and check that all its audio is there.

    Where several sets lie in `database_path`, that of `track` goes first: ASVspoof 2021 LA or DF, or In-the-Wild; then
    the evaluation part of the corpus that is there, so that the default track works on an ASVspoof 2019 LA tree; of a
    table or class folders that name no parts, all of them. `trained_on` is the identity of the corpus of the detector's
    training: of that one no training part is taken, but the development part, where it has no evaluation part.
    `protocols_path` is a folder, or one file with the trials in any known format, a bare list of names too; its audio
    is looked for beside it and in every audio folder of the database. `subset` is eval, progress, hidden or all, of
    keys that have subsets; None means eval where there are some (official figures are those of eval), else all.

    Trials without a known key have the label None. Any part may lack a class; unless it `needs_spoofs`, so may class
    folders. Raises UserError as `find_corpus` does.
    """
    place = CorpusPlace(database_path, protocols_path, label_1)
    _check_protocols(protocols_path)
    if protocols_path is not None and _is_file(protocols_path):
        table = _table_with_parts(place)
        found = table if table and _was_trained_on(table, trained_on) else _trials_of_file(place, protocols_path)
    else:
        found = _find_evaluation_layout(place, track, () if needs_spoofs else _SPEECH_LAYOUTS)
    source = found.part("eval")
    if source is None:
        source = (None if _was_trained_on(found, trained_on) else found.whole) or found.part("dev")
    assert source is not None
    scanned = source.scan() if needs_spoofs else source.scan().heard_for_speech()
    scanned.protocol()
    name, chosen = chosen_subset(scanned, subset)
    return replace(open_part(source, found.layout, chosen), subset=name)


def _find_evaluation_layout(place: CorpusPlace, track: str, more: tuple[_Find, ...] = ()) -> FoundCorpus:
    """Recognise the set that a detector for `track` is evaluated on: of the published ones that have an evaluation
    part, else the own corpus that training would use (in `more` layouts too), else a published one by its development
    part.

    Raises UserError where there is none.
    """
    without = None
    for find in (*_evaluation_order(track), *more):
        found = find(place)
        if found and (found.part("eval") or found.whole or (find in (*_OWN_LAYOUTS, *more) and found.part("dev"))):
            return found
        without = without or (found if found and found.part("dev") else None)
    if without:
        return without
    raise _not_recognised(place, (*_LOOKED_FOR_SETS, *_LOOKED_FOR_EVAL), "has nothing to evaluate on")


def find_all_layouts(
    database_path: Path, protocols_path: Path | None = None, label_1: str | None = None, *, needs_spoofs: bool = True
) -> list[FoundCorpus]:
    """Recognise every corpus in a folder, the one that training would use first; raises UserError for none.

    Unless it `needs_spoofs`, class folders of bona fide speech alone are one, too, where there is no other.
    """
    place = CorpusPlace(database_path, protocols_path, label_1)
    _check_protocols(protocols_path)
    if protocols_path is not None and _is_file(protocols_path):
        is_table = bool(tables.headed_as(protocols_path).titles)
        return [
            find_training_layout(place, needs_spoofs=needs_spoofs)
            if is_table
            else _trials_of_file(place, protocols_path)
        ]
    known = [find for find in (*TRAINING_LAYOUTS, *_EVALUATION_SETS.values()) if find not in _OWN_OTHERS]
    everything = [found for find in known if (found := find(place))]
    for others in (_OWN_OTHERS, () if needs_spoofs else _SPEECH_LAYOUTS):
        everything = everything or [found for find in others if (found := find(place))]
    if not everything:
        raise _not_recognised(place, (*_LOOKED_FOR, *_LOOKED_FOR_SETS))
    return sorted(everything, key=lambda found: not found.can_train)


def _trials_of_file(place: CorpusPlace, path: Path) -> FoundCorpus:
    audio = (path.parent, *_audio_folders(place.database))
    return FoundCorpus("trial list", place.database, (PartSource("eval", place.scanning(path), audio),))


def _table_with_parts(place: CorpusPlace) -> FoundCorpus | None:
    """Return the corpus that a table can be trained on as; None where the file is none."""
    assert place.protocols is not None
    return tables.find(place) if headed_columns(tables.headed_as(place.protocols).names) else None


def _was_trained_on(found: FoundCorpus, trained_on: Mapping[str, str]) -> bool:
    """Whether the training part of a corpus, by its content, is the one that a detector was trained on."""
    train = found.part("train") if trained_on else None
    return train is not None and train.scan().content_sha256 == trained_on.get("train")


def _evaluation_order(track: str) -> list[_Find]:
    others = [find for name, find in _EVALUATION_SETS.items() if name != track]
    own = [_EVALUATION_SETS[track]] if track in _EVALUATION_SETS else []
    first = (asvspoof_2019.find, asvspoof_5.find)
    return [*own, *first, *others, *_OWN_LAYOUTS]


def _audio_folders(database_path: Path) -> list[Path]:
    """Return every folder below a database that holds audio in one of the layouts, and the database itself."""
    folders = [database_path, database_path / "flac", database_path / in_the_wild.FOLDER]
    for base in (database_path, database_path / "LA"):
        folders += [asvspoof_2019.audio_folder(base, name) for name in ("eval", "dev", "train")]
    folders += [database_path / f"ASVspoof2021_{track}_eval" / "flac" for track in asvspoof_2021.TRACKS]
    folders += [database_path / name for name in ("flac_E_eval", "flac_E_prog", "flac_D", "flac_T")]
    return [folder for folder in folders if folder.is_dir()]


def _is_file(protocols_path: Path | None) -> bool:
    return protocols_path is not None and not protocols_path.is_dir()


def _check_protocols(protocols_path: Path | None) -> None:
    if protocols_path is not None and not protocols_path.exists():
        raise UserError(
            f"--protocols_path {protocols_path} has no protocols: found no such folder: pass the folder with the "
            f"protocol files, or a table with the header path,label; {WITHOUT_DATA}"
        )
    if protocols_path is not None and _is_file(protocols_path) and (why := why_unread(protocols_path)):
        raise UserError(
            f"--protocols_path {protocols_path}: {why}: pass the folder with the protocol files, or a table"
        )


def _not_recognised(
    place: CorpusPlace, looked_for: tuple[str, ...], verdict: str = "is not a corpus that is known"
) -> UserError:
    def is_corpus(folder: Path) -> bool:
        try:
            return any(find(CorpusPlace(folder)) for find in (*TRAINING_LAYOUTS, *_EVALUATION_SETS.values()))
        except UserError:  # one without its protocols
            return False

    database = place.database
    return UserError(
        f"--database_path {database} {verdict}: looked in it and in {database / 'LA'} for {'; '.join(looked_for)}; "
        f"found {what_was_found(database)}: {the_one_thing(database, is_corpus)}; {WITHOUT_DATA}"
    )
