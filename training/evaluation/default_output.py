"""Where the scores of --eval go without --eval_output: beside the checkpoint, in a file of their own for each set."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from training.checkpoints.data_digests import AUDIO_SIZES
from training.checkpoints.record import CheckpointRecord
from training.data.audio_identity import audio_identity
from training.data.database import database_folder
from training.evaluation.finished_scores import look_at
from training.evaluation.origin import Origin
from training.evaluation.subject import Subject
from training.planning.refusals import changed_data
from training.settings.options import Options
from utils.corpora import CorpusPart, find_corpus
from utils.errors import UserError

_DIGITS = 8
_MOST_LETTERS = 24


def default_output(subject: Subject, which: str, part: CorpusPart, origin: Origin) -> Path:
    """Return the file for the scores of `part`: the usual one for the corpus of the training, else one of that set.

    The corpus of the training is that where it lay, or the one that has the content of its training and development
    parts, once nothing lies there any more. The usual name tells layout, part and subset, which many sets share. Where
    the usual file has exactly these scores, since an earlier version gave it to every set, it stays theirs.
    """
    usual = _usual(subject, which, part)
    if _is_of_the_training(subject):
        return usual
    try:
        found = look_at(usual, origin)
    except OSError:  # what cannot be read is no file of these scores
        found = None
    if found and found.is_same:
        return usual
    return usual.with_name(f"{usual.stem}_of_{_set_name(subject, part)}{usual.suffix}")


def _usual(subject: Subject, which: str, part: CorpusPart) -> Path:
    sources = subject.sources
    of = _plain(f"{part.layout} {part.name} {part.subset}")
    name = sources[-1].stem
    mean = f"mean_of_{which}_{len(sources)}_to_" if len(sources) > 1 else ""
    mean = "swa_of_" if subject.epochs_of_swa else mean
    return sources[-1].with_name(f"{mean}{name}_scores_{of}.txt")


def _is_of_the_training(subject: Subject) -> bool:
    """Whether the places of data are those of the training, which need not be typed."""
    if subject.record is None:
        return False
    trained, used = subject.record.options, subject.options
    pairs = ((trained.database_path, used.database_path), (trained.protocols_path, used.protocols_path))
    is_its_place = all(before == now or (before and now and _is_same_place(before, now)) for before, now in pairs)
    if is_its_place:
        return True
    is_still_there = database_folder(trained.database_path).exists()
    return not is_still_there and _is_of_the_content(subject.record, used)


def _is_of_the_content(trained: CheckpointRecord, used: Options) -> bool:
    """Whether the corpus that is used has the protocols and the audio that were trained and validated on."""
    protocols = Path(used.protocols_path) if used.protocols_path else None
    try:
        corpus = find_corpus(database_folder(used.database_path), protocols)
    except UserError:  # one for evaluation alone, or a list of trials
        return False
    if any(trained.data.get(part) != digest for part, digest in corpus.identity.items()):
        return False
    audio = audio_identity((corpus.train, corpus.dev), trained.options.seed)
    return AUDIO_SIZES in audio.keys() & trained.data.keys() and not changed_data(trained, corpus.identity | audio)


def _is_same_place(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _set_name(subject: Subject, part: CorpusPart) -> str:
    """Return a word for the set: its folder's name, and a digest of where that is and of which trials are scored.

    Not of the protocol's name, nor of its order: keys that come later are keys of the same set.
    """
    folder = database_folder(subject.options.database_path).resolve()
    facts = [str(folder), sorted(trial.utterance for trial in part.protocol.trials)]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:_DIGITS]
    return "_".join(filter(None, (_plain(folder.stem)[:_MOST_LETTERS], digest)))


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
