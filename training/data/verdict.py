"""What --check_data makes of what it found: what would stop a run, what a person should know, and the verdict."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from training.data.check import CheckedCorpus, CheckedPart
from utils.audio.checking import AudioFault
from utils.audio.waveforms import SAMPLE_RATE_HZ
from utils.corpora.parts import Published
from utils.corpora.trials import ONLY_SPEECH, UNKNOWN, Fault, FaultKind, Trial


def faults_of(part: CheckedPart) -> dict[str, list[str]]:
    """Return what would stop a run that uses this part: the places, by what is wrong with them."""
    faults: dict[str, list[str]] = {}
    for fault in (*part.scanned.faults, *_class_faults(part)):
        faults.setdefault(fault.kind.value, []).append(fault.found)
    if part.folder_error:
        faults["audio folders that cannot be listed"] = [part.folder_error]
    if part.missing:
        faults["missing audio files"] = part.missing
    unreadable = _of_fault(part, AudioFault.UNREADABLE)
    if unreadable:
        faults[AudioFault.UNREADABLE.value] = unreadable
    return faults


def notes_of(part: CheckedPart) -> dict[str, list[str]]:
    """Return what a run would not stop at, but a person should know: odd files, and unusual rates."""
    notes: dict[str, list[str]] = {}
    for fault in AudioFault:
        places = [] if fault is AudioFault.UNREADABLE else _of_fault(part, fault)
        if places:
            notes[fault.value] = places
    named = Counter(os.path.normpath(path) for path in part.paths if path)
    several = [f"{Path(path).name} ({count} lines)" for path, count in named.items() if count > 1]
    if several:
        notes["audio files that several lines name, each in another way"] = several
    rates = Counter(audio.sample_rate_hz for audio in part.audio if audio and audio.samples)
    usual = SAMPLE_RATE_HZ if rates[SAMPLE_RATE_HZ] else (rates.most_common(1)[0][0] if rates else 0)
    others = [
        f"{path.name} ({audio.sample_rate_hz:,} Hz)"
        for path, audio in zip(part.paths, part.audio, strict=True)
        if path and audio and audio.samples and audio.sample_rate_hz != usual
    ]
    if others:
        notes[f"audio files of another rate than {usual:,} Hz"] = others
    return notes


def _class_faults(part: CheckedPart) -> Sequence[Fault]:
    """An evaluation goes without one of the classes, training does not."""
    return () if part.source.name == "eval" else part.scanned.class_faults()


def _of_fault(part: CheckedPart, kind: AudioFault) -> list[str]:
    return [
        f"{path.name} ({audio.reason})"
        for path, audio in zip(part.paths, part.audio, strict=True)
        if path and audio and audio.fault is kind
    ]


def would_run(corpora: Sequence[CheckedCorpus]) -> bool:
    """Whether training would run; where there are sets for evaluation only, whether evaluating on each would."""
    return not any(faults_of(part) for part in _needed(corpora).values())


def summary(corpora: Sequence[CheckedCorpus]) -> str:
    """Return the verdict in one sentence, and one more for an evaluation that would fail where training would not."""
    what = "training" if corpora[0].found.can_train else "evaluation"
    needed = _needed(corpora)
    broken = _broken(needed)
    counts = " and ".join(f"{len(part.scanned.trials):,} {name}" for name, part in needed.items())
    verdict = f"Nothing stands in the way of {what}: {counts} utterances."
    if broken:
        verdict = f"{what.capitalize()} would fail: {broken}{ONLY_SPEECH if _is_speech(needed.values()) else ''}."
    others = _broken({name: part for name, part in _all_parts(corpora).items() if part not in needed.values()})
    return f"{verdict} Evaluation would fail: {others}." if others else verdict


def _is_speech(parts: Iterable[CheckedPart]) -> bool:
    """Whether nothing is wrong but that spoofs are missing."""
    return all(
        set(faults_of(part)) <= {FaultKind.CLASS.value} and any(trial.is_bona_fide for trial in part.scanned.trials)
        for part in parts
    )


def _needed(corpora: Sequence[CheckedCorpus]) -> dict[str, CheckedPart]:
    """Return the parts that training takes, or, where there is nothing to train on, all of them."""
    first = corpora[0]
    if not first.found.can_train:
        return _all_parts(corpora)
    return {part.source.name: part for part in first.parts if part.source.name != "eval"}


def _all_parts(corpora: Sequence[CheckedCorpus]) -> dict[str, CheckedPart]:
    return {f"{corpus.found.layout} {part.source.name}": part for corpus in corpora for part in corpus.parts}


def _broken(parts: Mapping[str, CheckedPart]) -> str:
    of_parts = []
    for name, part in parts.items():
        counts = [f"{kind} ({len(places):,})" for kind, places in faults_of(part).items()]
        if counts:
            of_parts.append(f"{name} has {', '.join(counts)}")
    return "; ".join(of_parts)


def published_text(published: Published | None, trials: Sequence[Trial]) -> str:
    """Compare with the published counts, where the names of the utterances are those of the published set; else ""."""
    if published is None or 2 * sum(trial.utterance.startswith(published.prefix) for trial in trials) < len(trials):
        return ""
    found = Counter(trial.is_bona_fide for trial in trials)
    counts_bona_fide = published.bona_fide is not None and found[None] == 0
    if len(trials) == published.total and (not counts_bona_fide or found[True] == published.bona_fide):
        return "the same number" + (" of each class" if counts_bona_fide else "")
    bona_fide = f", {published.bona_fide:,} of them bona fide" if published.bona_fide is not None else ""
    return f"{published.total:,}{bona_fide}; here {len(trials) - published.total:+,}"


def overlaps(corpus: CheckedCorpus) -> dict[str, list[str]]:
    """Return the utterances and speakers that training and development share.

    An utterance is shared too where its file is, which the other part names in another way, such as `./a.wav`.
    """
    named = {part.source.name: part for part in corpus.parts}
    parts = [named[name] for name in ("train", "dev") if name in named]
    if len(parts) < 2:
        return {"utterances": [], "speakers": []}
    files, dev_files = map(_by_file, parts)
    utterances, speakers = (
        set.intersection(*({getattr(trial, what) for trial in part.scanned.trials} for part in parts))
        for what in ("utterance", "speaker")
    )
    utterances |= {files[path] for path in files.keys() & dev_files.keys()}
    return {"utterances": sorted(utterances), "speakers": sorted(speakers - {UNKNOWN})}


def _by_file(part: CheckedPart) -> dict[str, str]:
    pairs = zip(part.paths, part.scanned.trials, strict=True)
    return {os.path.normpath(path): trial.utterance for path, trial in pairs if path}
