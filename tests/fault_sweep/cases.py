"""Which calls of a training fail, and how: every fault that a file system may give to each call that was recorded.

A call is found again in another run of the same training by its name, its path without process numbers and random
parts, and how many of those came before: two threads that write different files do not change that.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tests.system_calls.recorder import Call, Fault

FAULTS: Mapping[str, Fault] = {
    "EIO": Fault("", error=errno.EIO),
    "ENOSPC": Fault("", error=errno.ENOSPC),
    "short": Fault("", count=0),
    "killed": Fault("", kill=True),
}
_CHANGES = ("EIO", "ENOSPC", "killed")
FAULTS_OF: Mapping[str, tuple[str, ...]] = {
    "open to read": ("EIO",),
    "open to write": _CHANGES,
    "read": ("EIO", "short"),
    "write": (*_CHANGES, "short"),
    "close": ("EIO", "ENOSPC"),  # as NFS tells of a full disk
    "stat": ("EIO",),
    **dict.fromkeys(("fsync", "rename", "link", "unlink", "mkdir", "symlink", "truncate"), _CHANGES),
}
"""A process that is killed at a call that changes nothing leaves what it leaves when killed at the next that does."""
_NUMBERS = re.compile(r"(?<!\\)\d+")


@dataclass(frozen=True)
class Case:
    """One fault of one call: the `occurrence`-th of a name on the path that `pattern` finds."""

    call: str
    pattern: str
    occurrence: int
    fault: str
    kind: str
    site: tuple[str, ...] = ()

    @property
    def injected(self) -> Fault:
        """It as the recorder takes it."""
        return replace(FAULTS[self.fault], kind=self.call, path=self.pattern, occurrence=self.occurrence)

    def __str__(self) -> str:
        """As it is told in a report."""
        return f"{self.call} {self.occurrence} of {self.pattern}: {self.fault}"


def cases_of(calls: Sequence[Call], folder: str) -> Iterator[Case]:
    """Yield every fault of every recorded call on something in `folder`, in the order of the calls."""
    seen: Counter[tuple[str, str]] = Counter()
    before: dict[str, str] = {}
    for call in calls:
        if not call.paths or not call.paths[0].startswith(f"{folder}/"):
            continue
        pattern = pattern_of(call.paths[0], folder)
        seen[call.name, pattern] += 1
        thread = "main" if call.thread == call.process else "another"
        here = f"{call.name} {_NUMBERS.sub('N', pattern)}"
        site = (here, thread, str(call.flags), before.get(thread, ""))
        before[thread] = here
        kind = kind_of(call)
        for fault in FAULTS_OF.get(kind, ()):
            yield Case(call.name, pattern, seen[call.name, pattern], fault, kind, site)


def first_middle_last(cases: Sequence[Case]) -> list[Case]:
    """Return for each site and fault the first, a middle and the last case.

    A site is a call of a name on a path without its numbers, by the main thread or another, with its flags, after the
    same call of that thread.
    """
    sites: dict[tuple[str, ...], list[int]] = {}
    for number, case in enumerate(cases):
        sites.setdefault((*case.site, case.fault), []).append(number)
    chosen = {numbers[at] for numbers in sites.values() for at in (0, len(numbers) // 2, -1)}
    return [cases[number] for number in sorted(chosen)]


def kind_of(call: Call) -> str:
    """Return which row of `FAULTS_OF` a call belongs to."""
    if call.kind != "open":
        return call.kind
    return "open to write" if call.flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) else "open to read"


def pattern_of(path: str, folder: str) -> str:
    """Return a regular expression for a path in `folder` in another run, wherever that run's folder is."""
    inside = re.escape(path.removeprefix(folder))
    inside = re.sub(r"(\\\.tmp\\-.*)\\-\d+\\-[0-9a-f]{8}$", r"\1\\-\\d+\\-[0-9a-f]{8}", inside)
    inside = re.sub(r"(\\\.tmp\\-link\\-(from|to)\\-)\d+$", r"\1\\d+", inside)
    inside = re.sub(r"tfevents[^/]*$", "tfevents[^/]*", inside)
    return f"{inside}$"
