"""Trials, the protocols they make, and what can be wrong with one: the nouns of every corpus."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from utils.errors import UserError

ONLY_SPEECH = "; a vocoder (--model_type hifigan) is trained on bona fide speech alone"
NO_ATTACK = "-"
UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of a protocol file; `attack` is "-" for bona fide, `is_bona_fide` None where there is no key.

    `speaker` and `codec` are "-" where they are not known, `subset` and `part` are "". `source` is the utterance that a
    spoof was made of, "-" where that is not said.

    >>> Trial(speaker="LA_0079", utterance="LA_T_1138215", attack="-", is_bona_fide=True).label
    1
    """

    speaker: str
    utterance: str
    attack: str
    is_bona_fide: bool | None
    codec: str = UNKNOWN
    subset: str = ""
    part: str = ""
    source: str = UNKNOWN

    def __post_init__(self) -> None:
        if self.is_bona_fide and self.attack != NO_ATTACK:
            raise ValueError(f'the attack of a bona fide trial must be "-", found {self.attack!r}')

    @property
    def label(self) -> int | None:
        """1 for bona fide, 0 for spoof, None where that is not known."""
        return None if self.is_bona_fide is None else int(self.is_bona_fide)


def sources_of(trials: Sequence[Trial]) -> list[int | None]:
    """Return of each trial the position of its source, a bona fide one; None for what has none among them."""
    bona_fide = {trial.utterance: index for index, trial in enumerate(trials) if trial.is_bona_fide}
    return [bona_fide.get(trial.source) if trial.is_bona_fide is False else None for trial in trials]


@dataclass(frozen=True)
class Protocol:
    """A parsed protocol file: its trials in the file's order, and the SHA-256 (hex) of what decides on them.

    That is the bytes of the file, or whatever else the trials were made from. `notes` are what was taken over that
    nobody may have meant: how labels were read that are not written as in the challenges.
    """

    path: Path
    trials: tuple[Trial, ...]
    content_sha256: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def labels(self) -> tuple[int | None, ...]:
        """1 for bona fide, 0 for spoof, None for not known, in the order of `trials`."""
        return tuple(trial.label for trial in self.trials)

    @property
    def num_bona_fide(self) -> int:
        """How many trials are bona fide."""
        return sum(trial.is_bona_fide is True for trial in self.trials)

    @property
    def num_spoof(self) -> int:
        """How many trials are spoof."""
        return sum(trial.is_bona_fide is False for trial in self.trials)

    @property
    def attacks(self) -> tuple[str, ...]:
        """The names of the attacks, each once, sorted."""
        return tuple(sorted({trial.attack for trial in self.trials if trial.is_bona_fide is False}))


class FaultKind(enum.Enum):
    """What can be wrong with a protocol, in the words of a report."""

    FILE = "protocol that cannot be read"
    LINE = "lines that cannot be understood"
    LABEL = "unknown labels"
    ATTACK = "bona fide lines that name an attack"
    DOUBLED = "doubled lines"
    CLASS = "classes without a trial"


@dataclass(frozen=True)
class Fault:
    """Something wrong with a protocol: `message` is the sentence that refuses it, `found` the short form of it."""

    kind: FaultKind
    message: str
    found: str


@dataclass(frozen=True)
class ScannedProtocol:
    """All that a protocol says, and all that is wrong with it; `names` are the utterances as they are written there.

    Trials are those that could be read, each utterance once; one whose label is unknown has no key. `has_keys` is False
    for a bare list of trials. `notes` are as in Protocol.
    """

    path: Path
    trials: tuple[Trial, ...] = ()
    names: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    content_sha256: str = ""
    has_keys: bool = True
    notes: tuple[str, ...] = ()

    def protocol(self) -> Protocol:
        """Return the protocol; raises UserError with the first fault."""
        if self.faults:
            raise UserError(self.faults[0].message)
        return Protocol(self.path, self.trials, self.content_sha256, self.notes)

    def heard_for_speech(self) -> ScannedProtocol:
        """Return this for those who hear bona fide speech alone: without the faults that are about classes."""
        return replace(self, faults=tuple(fault for fault in self.faults if fault.kind is not FaultKind.CLASS))

    def class_faults(self) -> tuple[Fault, ...]:
        """Return what keeps this from training: a class without a trial, or nothing at all."""
        counts = [sum(trial.is_bona_fide is wanted for trial in self.trials) for wanted in (True, False)]
        if all(counts) or {fault.kind for fault in self.faults} & {FaultKind.FILE, FaultKind.CLASS}:
            return ()
        message = (
            f"{self.path}: a protocol needs both bonafide and spoof lines, found {counts[0]} bonafide "
            f"and {counts[1]} spoof in its {len(self.trials)} lines: an EER is not defined for one class"
            f"{ONLY_SPEECH if counts[0] else ''}"
        )
        return (Fault(FaultKind.CLASS, message, f"{counts[0]} bona fide, {counts[1]} spoof"),)
