"""What a power cut or a crash of the kernel may leave of the steps so far: the legal states of three file systems.

Durable is what the program has synced. What else there is after a crash is any of what the file system may have
written by then, by itself, in whatever order it allows:

ORDERED, as ext4 with data=ordered (its default), XFS and the like: names, links and lengths reach the disk in the
    order in which they were changed, a prefix of them all. fsync of a file or folder makes durable what was changed up
    to the last change of *that* inode, and everything before (one journal): not what came after. Content is delayed:
    a file's name, or a rename over another file, may be there while the file is empty or ends early, at any block.
    Blocks that were there before are overwritten in place, each for itself.
WRITEBACK, as ext4 with data=writeback: the same for names; a file may have its full length while blocks of it are
    zeros or what the disk held there before, in any choice of blocks.
UNJOURNALLED, as ext2, or whatever POSIX allows: content as in WRITEBACK; each name is for itself. fsync of a file makes
    its content durable and none of its names; fsync of a folder makes durable which inodes its names lead to. Without
    that each name of a folder, of any folder, holds what it held at the last fsync or anything it got since. So a
    rename is two changes, of which either may be lost: both names, or none. It is never torn: a name leads to the old
    inode or the new one.

Every entry state of ORDERED and WRITEBACK is one of UNJOURNALLED too, and every content of ORDERED one of WRITEBACK:
the last model has all states, the first two say which of them a journal rules out.

What is assumed of all of them: sectors of 512 bytes are written whole; an inode keeps its content as long as a name
leads to it (its blocks are not given to others before the name is gone from the disk, which fsck sees to on ext2); what
was synced stays. Times, owners and modes are not modelled. sync_file_range(2) and O_DIRECT promise nothing here.

Sources: T. S. Pillai et al., All File Systems Are Not Created Equal, OSDI 2014 (ALICE: abstract persistence models,
section 3 and table 1); J. Mohan et al., Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing, OSDI 2018
(CrashMonkey: crash points, oracles); Linux Documentation/filesystems/ext4/journal.rst and Documentation/admin-guide/
ext4.rst (data=, delalloc; auto_da_alloc is not relied on); fsync(2), NOTES on the folder that holds a file.
"""

from __future__ import annotations

import enum
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.crash_states.disk import EVERYTHING, Disk, Entry, Recording, Step, changed

BLOCK_BYTES, SECTOR_BYTES = 4096, 512
_GARBAGE = b"\x5a"


class Model(enum.Enum):
    """A kind of file system; see above."""

    ORDERED = "journalled, ordered"
    WRITEBACK = "journalled, writeback"
    UNJOURNALLED = "not journalled"


@dataclass(frozen=True)
class State:
    """What one crash left: `disk`, after `number` steps; `torn` are the files whose content is not what was last there.

    `identity` is the same for two states in which every path leads to the same inode and content; `content` for those
    in which that is so of what the program reads, whatever temporaries there are.
    """

    number: int
    disk: Disk
    torn: frozenset[int]
    identity: int
    content: int


@dataclass
class Counts:
    """How many choices of names and contents were legal at all moments together, and how many of them were tried."""

    legal: int = 0
    tried: int = 0


@dataclass
class Past:
    """Follows a recording step by step and knows at each what is durable and what may be.

    `durable` is what every crash leaves: names, and contents. `pending` is what each name got since, in order;
    `unsynced` are the files written since their last fsync, with the steps that wrote them. Up to step `journalled` a
    journal has all changes of names.
    """

    recording: Recording
    number: int = 0
    now: Disk = field(default_factory=Disk)
    durable: dict[Entry, int] = field(default_factory=dict)
    pending: dict[Entry, list[int | None]] = field(default_factory=dict)
    unsynced: dict[int, tuple[bytes, list[Step]]] = field(default_factory=dict)
    journalled: int = 0
    _touched: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now = self.recording.after(0)
        self.durable = dict(self.now.names)

    def advance(self) -> Step:
        """Do the next step."""
        step = self.recording.steps[self.number]
        self.number += 1
        for entry, inode in step.entries:
            self.pending.setdefault(entry, [self.durable.get(entry)]).append(inode)
            for touched in (entry[0], inode, self.now.names.get(entry)):
                if touched is not None:
                    self._touched[touched] = self.number
        if step.inode is not None:
            before = self.now.contents.get(step.inode, b"")
            self.unsynced.setdefault(step.inode, (before, []))[1].append(step)
            self._touched[step.inode] = self.number
        self.now.apply(step)
        if step.synced is not None:
            self._sync(step.synced)
        return step

    @property
    def signature(self) -> int:
        """A number that two pasts share from which the same states may come of a crash."""
        pending = ((entry, tuple(values)) for entry, values in self.pending.items())
        unsynced = ((inode, len(steps)) for inode, (_, steps) in self.unsynced.items())
        names = frozenset(self.durable.items()), frozenset(self.now.names.items())
        return hash((names, frozenset(pending), frozenset(unsynced)))

    def _sync(self, inode: int) -> None:
        everything = inode == EVERYTHING
        self.journalled = self.number if everything else max(self.journalled, self._touched.get(inode, 0))
        for file in list(self.unsynced) if everything else [inode]:
            self.unsynced.pop(file, None)
        for entry in [entry for entry in self.pending if everything or entry[0] == inode]:
            _set(self.durable, entry, self.pending.pop(entry)[-1])

    def choices_of_names(self, model: Model, most: int, draw: random.Random) -> tuple[int, Iterator[dict[Entry, int]]]:
        """Return how many choices of names a crash may leave now, and each of them, or `most` of them drawn."""
        if model is not Model.UNJOURNALLED:
            return self.number - self.journalled + 1, self._prefixes()
        entries = [(entry, list(dict.fromkeys(values))) for entry, values in self.pending.items()]
        legal = math.prod(len(values) for _, values in entries)
        return legal, (self._chosen(entries, chosen) for chosen in _product([len(v) for _, v in entries], most, draw))

    def _chosen(self, entries: Sequence[tuple[Entry, list[int | None]]], chosen: Sequence[int]) -> dict[Entry, int]:
        names = dict(self.durable)
        for (entry, values), number in zip(entries, chosen, strict=True):
            _set(names, entry, values[number])
        return names

    def _prefixes(self) -> Iterator[dict[Entry, int]]:
        names = self.recording.after(self.journalled).names
        yield dict(names)
        for step in self.recording.steps[self.journalled : self.number]:
            if step.entries:
                for entry, inode in step.entries:
                    _set(names, entry, inode)
                yield dict(names)


def _set(names: dict[Entry, int], entry: Entry, inode: int | None) -> None:
    if inode is None:
        names.pop(entry, None)
    else:
        names[entry] = inode


def _product(sizes: Sequence[int], most: int, draw: random.Random) -> Iterator[tuple[int, ...]]:
    """Yield the choices of one number below each size: all; or the first, the last, all that differ from one of them in
    one place, and others drawn, `most` together."""
    if math.prod(sizes) <= most:
        yield from itertools.product(*map(range, sizes))
        return
    first, last = tuple(0 for _ in sizes), tuple(size - 1 for size in sizes)
    seen = set()
    near = (
        (*base[:place], number, *base[place + 1 :])
        for base in (first, last)
        for place, size in enumerate(sizes)
        for number in range(size)
    )
    drawn = (tuple(draw.randrange(size) for size in sizes) for _ in range(10 * most))
    for chosen in itertools.chain((first, last), near, drawn):
        if chosen not in seen:
            seen.add(chosen)
            yield chosen
        if len(seen) >= most:
            return


def contents_after_a_crash(before: bytes, steps: Sequence[Step], model: Model) -> list[bytes]:
    """Return what a file may hold whose durable content is `before`, and which was written by `steps` and not synced.

    Where blocks are for themselves, not every choice of them: each boundary, each alone, each alone missing.
    """
    contents = [before]
    for step in steps:
        contents.append(changed(contents[-1], step))
    whole = contents[-1]
    blocks = range(0, len(whole), BLOCK_BYTES)
    found = [*contents, b""] if not before else contents
    found += [whole[:cut] for cut in blocks if cut >= len(before)]
    old = before.ljust(len(whole), b"\0")[: len(whole)]
    overwritten = [at for at in blocks if at + BLOCK_BYTES <= len(before)]
    for at in blocks if model is not Model.ORDERED else overwritten:
        end = at + BLOCK_BYTES
        found += [whole[:at] + old[at:end] + whole[end:], old[:at] + whole[at:end] + old[end:]]
        found += [whole[:at] + old[at:], old[:at] + whole[at:]]
        if model is not Model.ORDERED:
            found.append(whole[:at] + (_GARBAGE * BLOCK_BYTES)[: len(whole) - at] + whole[end:])
    last = blocks[-1] if blocks else 0
    if model is not Model.ORDERED:
        found += [whole[:at] + old[at:] for at in range(last, len(whole), SECTOR_BYTES)]
    return list(dict.fromkeys(found))


def states(
    recording: Recording,
    model: Model,
    is_read: Callable[[str], bool],
    counts: Counts,
    *,
    begin: int = 0,
    end: int | None = None,
    most: int = 512,
    seed: int = 1,
) -> Iterator[State]:
    """Yield the states that a crash may leave after each step from `begin` to `end`, each once for what was told then.

    `is_read` says of a path whether the program reads what the file holds: the others' content is drawn. At most `most`
    choices are tried at one moment, drawn where there are more.
    """
    past, draw, known = Past(recording), random.Random(seed), set[int]()
    while True:
        if past.number >= begin:
            told = past.number and recording.steps[past.number - 1].told
            known = set() if told else known  # what was right before something was told, may be wrong after it
            for state in _states_now(past, model, is_read, counts, most, draw):
                if state.identity not in known:
                    known.add(state.identity)
                    yield state
        if past.number == (len(recording.steps) if end is None else end):
            return
        past.advance()


def _states_now(
    past: Past, model: Model, is_read: Callable[[str], bool], counts: Counts, most: int, draw: random.Random
) -> Iterator[State]:
    legal, choices = past.choices_of_names(model, most, draw)
    for names in choices:
        disk = Disk(names, past.now.contents, past.now.links, past.now.folders)
        paths = disk.paths()
        unsynced = {inode for inode in paths.values() if inode in past.unsynced}
        read = sorted({inode for path, inode in paths.items() if inode in unsynced and is_read(path)})
        found = [contents_after_a_crash(*past.unsynced[inode], model) for inode in read]
        # What nobody reads is what was synced last, or all of it: the blocks between make no difference.
        unread = {inode: draw.choice((past.unsynced[inode][0], past.now.contents[inode])) for inode in unsynced}
        sizes = [len(contents) for contents in found]
        what = [(path, inode) for path, inode in paths.items() if is_read(path)]
        counts.legal += math.prod(sizes) * legal // max(1, min(legal, most))
        for chosen in _product(sizes, max(1, most // 8), draw):
            counts.tried += 1
            contents = unread | {
                inode: variants[number] for inode, variants, number in zip(read, found, chosen, strict=True)
            }
            torn = frozenset(inode for inode, content in contents.items() if content != past.now.contents.get(inode))
            held = frozenset((path, inode, contents.get(inode, b"") if inode in read else 0) for path, inode in what)
            disk = Disk(names, {**past.now.contents, **contents}, disk.links, disk.folders)
            yield State(past.number, disk, torn, hash((held, frozenset(paths))), hash(held))
