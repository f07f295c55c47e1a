"""Divides trials into a training and a development part where a corpus names none, always in the same way."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from utils.corpora.trials import UNKNOWN, Fault, ScannedProtocol, Trial
from utils.table_bytes import bytes_on_disk

DEV_SHARE = 0.2


def development_positions(trials: Sequence[Trial]) -> list[int]:
    """Return the positions of the trials that make the development part: whole speakers, a fifth of each class.

    A spoof whose source is among the trials, and whose speaker is not known, goes with that source. Speakers are taken
    in the order of the SHA-256 of their names until a fifth of the bona fide and a fifth of the spoof trials are there;
    a trial without a known speaker counts as one of its own, and so do those of bona fide speech of a single speaker. A
    speaker whose taking would leave nothing of a class to train on stays. No seed takes part, so that runs with
    different seeds have the same parts.
    """
    has_one_voice = len({trial.speaker for trial in trials}) == 1 and all(trial.is_bona_fide for trial in trials)
    of_speaker: dict[str, list[int]] = defaultdict(list)
    utterances = {trial.utterance for trial in trials}
    for position, trial in enumerate(trials):
        own = trial.source if trial.source in utterances else trial.utterance
        is_alone = has_one_voice or trial.speaker == UNKNOWN
        of_speaker[f"utterance {own}" if is_alone else trial.speaker].append(position)
    order = sorted(of_speaker, key=lambda speaker: hashlib.sha256(bytes_on_disk(speaker)).digest())
    counts = {
        speaker: Counter(trials[at].is_bona_fide for at in positions) for speaker, positions in of_speaker.items()
    }
    all_counts = Counter(trial.is_bona_fide for trial in trials)
    taken: Counter[bool | None] = Counter()
    chosen: set[str] = set()
    for wanted in (True, False):
        for speaker in order:
            if taken[wanted] >= DEV_SHARE * all_counts[wanted]:
                break
            after = taken + counts[speaker]
            leaves_all = all(after[label] < all_counts[label] for label in (True, False) if all_counts[label])
            if speaker not in chosen and counts[speaker][wanted] and leaves_all:
                chosen.add(speaker)
                taken = after
    return sorted(position for speaker in chosen for position in of_speaker[speaker])


def selected(
    scanned: ScannedProtocol, positions: Sequence[int], *, with_faults: bool, more: tuple[Fault, ...] = ()
) -> ScannedProtocol:
    """Return some of the trials, whose names and labels make the content hash.

    The faults of the file go along with one of its parts, `more` are those of this part alone.
    """
    trials = tuple(scanned.trials[position] for position in positions)
    names = tuple(scanned.names[position] for position in positions)
    return ScannedProtocol(
        path=scanned.path,
        trials=trials,
        names=names,
        faults=(*(scanned.faults if with_faults else ()), *more),
        content_sha256=listing_sha256(names, trials),
        has_keys=scanned.has_keys,
        notes=scanned.notes,
    )


def listing_sha256(names: Sequence[str], trials: Sequence[Trial]) -> str:
    """Return the SHA-256 (hex) of which utterances there are, in which order, and of which class."""
    lines = (f"{name}\t{trial.label}\n" for name, trial in zip(names, trials, strict=True))
    return hashlib.sha256(bytes_on_disk("".join(lines))).hexdigest()
