"""Mutants of a recording: one of its syncs, renames or links left out, or changed places with what came next."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tests.crash_states.disk import Recording, Step
from tests.crash_states.model import Counts, Model, Past, states
from tests.crash_states.promises import Labels, Promises, Tidings, is_read, tidings_of


class Fate(enum.Enum):
    """What came of a mutant."""

    CAUGHT = "caught"
    """Some crash leaves what was promised otherwise, or something torn under a name that is read."""
    EQUIVALENT = "equivalent"
    """It allows no state that the recording itself does not allow at a moment with the same promises, temporaries
    aside, which the program does not read and the next start removes: so it cannot be caught."""
    MADE_UP_FOR = "made up for by another thread"
    """It breaks nothing since another thread happened to sync the same before this one told that it is durable."""
    SURVIVED = "survived"


@dataclass(frozen=True)
class Mutant:
    """A changed recording: its steps are the original's before `begin`, and from `differs_until` on.

    `is_made_up_for` says that another thread syncs what this one should, before this one tells of it.
    """

    what: str
    recording: Recording
    begin: int
    differs_until: int
    is_made_up_for: bool = False


def mutants_of(recording: Recording) -> Iterator[Mutant]:
    """Yield a mutant without each sync, rename and link, and with each of them done after what its thread did next.

    What two threads do has no order that anybody could have changed, and what a killed program did is a fact.
    """
    steps = recording.steps
    for number, step in enumerate(steps):
        if number < recording.last_from or not _is_ordered(step):
            continue
        rest = tuple(_possible(steps[number + 1 :], step))
        hidden = _is_synced_by_others(steps, number, step.synced)
        yield Mutant(f"without {step.call}", replace(recording, steps=steps[:number] + rest), number, number, hidden)
        own = (n for n in range(number + 1, len(steps)) if steps[n].thread == step.thread)
        after = next((n for n in own if _is_ordered(steps[n]) or _takes_away(steps[n]) or steps[n].told), None)
        if after is not None and _can_wait(step, steps[number + 1 : after + 1]):
            swapped = (*steps[:number], *steps[number + 1 : after + 1], step, *steps[after + 1 :])
            hidden = _is_synced_by_others(steps, number, step.synced or steps[after].synced)
            what = f"{step.call} after {steps[after].call}"
            yield Mutant(what, replace(recording, steps=swapped), number, after + 1, hidden)


def _is_synced_by_others(steps: tuple[Step, ...], number: int, inode: int | None) -> bool:
    """Whether another thread syncs this after a step, before the thread of that step tells of anything."""
    for step in steps[number + 1 :]:
        if step.thread == steps[number].thread and step.told:
            return False
        if inode is not None and step.synced == inode and step.thread != steps[number].thread:
            return True
    return False


def _is_ordered(step: Step) -> bool:
    return step.synced is not None or len(step.entries) > 1 or step.call.startswith("link")


def _takes_away(step: Step) -> bool:
    return any(inode is None for _, inode in step.entries)


def _possible(steps: tuple[Step, ...], missing: Step) -> Iterator[Step]:
    """Yield what is still done without a step: not the rename of a name that it would have made."""
    unmade = {(entry, inode) for entry, inode in missing.entries if inode is not None}
    for step in steps:
        if len(step.entries) > 1 and (step.entries[1][0], step.entries[0][1]) in unmade:
            continue
        yield step


def _can_wait(step: Step, passed: tuple[Step, ...]) -> bool:
    """Whether a step can be done after others: none of them needs the names that it makes."""
    made = {inode for _, inode in step.entries if inode is not None}
    return not any(inode in made for other in passed for _, inode in other.entries)


@dataclass
class Original:
    """What a recording allows: the states by how much was told at their moment, and where it stands after each step."""

    recording: Recording
    labels: Labels
    model: Model = Model.UNJOURNALLED
    allowed: dict[int, set[int]] = field(default_factory=dict)
    signatures: list[int] = field(default_factory=list)
    tidings: list[Tidings] = field(default_factory=list)

    def __post_init__(self) -> None:
        told = _told_before(self.recording)
        for state in states(self.recording, self.model, is_read, Counts()):
            self.allowed.setdefault(told[state.number], set()).add(state.content)
        self.signatures = _signatures(self.recording)
        self.tidings = tidings_of(self.recording, self.labels)

    def fate_of(self, mutant: Mutant) -> Fate:
        """Try the states of a mutant from where it differs on, until one is bad or it has come to the same place."""
        promises, told = Promises(mutant.recording, self.labels, self.tidings), _told_before(mutant.recording)
        fate = Fate.EQUIVALENT
        for state in states(
            mutant.recording, self.model, is_read, Counts(), begin=mutant.begin, end=self._where_they_meet(mutant)
        ):
            promises.advance_to(state.number)
            if any(promises.broken_by(state)):
                return Fate.CAUGHT
            if state.content not in self.allowed.get(told[state.number], ()):
                fate = Fate.MADE_UP_FOR if mutant.is_made_up_for else Fate.SURVIVED
        return fate

    def _where_they_meet(self, mutant: Mutant) -> int:
        """Return after which step of a mutant all is as in the original after the same; its length if never."""
        fewer = len(self.recording.steps) - len(mutant.recording.steps)
        found = _signatures(mutant.recording)
        met = (
            number
            for number in range(mutant.differs_until, len(found))
            if found[number] == self.signatures[number + fewer]
        )
        return next(met, len(mutant.recording.steps))


def _told_before(recording: Recording) -> list[int]:
    return [0, *itertools.accumulate(bool(step.told) for step in recording.steps)]


def _signatures(recording: Recording) -> list[int]:
    past = Past(recording)
    found = [past.signature]
    for _ in recording.steps:
        past.advance()
        found.append(past.signature)
    return found
