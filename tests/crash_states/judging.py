"""Shows what a crash left to the program's own readers, and says what they make of it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from tests.crash_states.disk import Disk
from tests.crash_states.model import State
from tests.crash_states.promises import Labels, Promises, is_checkpoint, is_read
from training.planning.decide import decide
from training.planning.facts import collect_facts
from training.runs.config_file import run_config
from training.settings.requests import AutoResume
from utils.errors import UserError

_EPOCHS_TOLD = re.compile(rb'<meta name="epochs" content="(\d+)">')
_TIMES = re.compile(rb"\d+\.\d+|[0-9a-f]{16}")
_RANDOM = re.compile(r"-\d+(-[0-9a-f]{8})?$|(?<=events\.out\.tfevents\.).*$")


@dataclass
class Place:
    """A folder in memory that shows one state after the other; what they have in common stays.

    Files are links into a pool, one for each inode and content, so that a state costs only its differences.
    """

    top: Path
    pool: Path
    _shown: dict[str, object] = field(default_factory=dict)
    _pooled: dict[tuple[int, bytes], Path] = field(default_factory=dict)

    def show(self, disk: Disk) -> None:
        """Make the folder hold what the disk does."""
        paths = disk.paths()
        wanted: dict[str, object] = {}
        for path, inode in paths.items():
            if inode in disk.folders:
                wanted[path] = "folder"
            elif inode in disk.links:
                wanted[path] = disk.links[inode]
            else:
                wanted[path] = self._file(inode, disk.contents.get(inode, b""))
        for path in sorted(self._shown.keys(), reverse=True):
            if wanted.get(path) != self._shown[path]:
                (self.top / path).rmdir() if self._shown[path] == "folder" else (self.top / path).unlink()
                del self._shown[path]
        for path in sorted(wanted.keys() - self._shown.keys()):
            thing = self._shown[path] = wanted[path]
            if thing == "folder":
                (self.top / path).mkdir()
            elif isinstance(thing, Path):
                (self.top / path).hardlink_to(thing)
            else:
                (self.top / path).symlink_to(str(thing))

    def _file(self, inode: int, content: bytes) -> Path:
        pooled = self._pooled.get((inode, content))
        if pooled is None:
            pooled = self._pooled[inode, content] = self.pool / str(len(self._pooled))
            pooled.write_bytes(content)
        return pooled


def copy_out(disk: Disk, folder: Path) -> None:
    """Write a state into an empty folder, for a program that changes it: two names of one inode are one file."""
    first: dict[int, Path] = {}
    for path, inode in sorted(disk.paths().items()):
        here = folder / path
        if inode in disk.folders:
            here.mkdir()
        elif inode in disk.links:
            here.symlink_to(disk.links[inode])
        elif inode in first:
            here.hardlink_to(first[inode])
        else:
            first[inode] = here
            here.write_bytes(disk.contents.get(inode, b""))


@contextlib.contextmanager
def place_in_memory(scratch: Path) -> Iterator[Place]:
    """Yield a place below `scratch`, which is the working folder meanwhile, as it was when the program ran in it."""
    for name in ("top", "pool"):
        (scratch / name).mkdir(parents=True)
    # The text of config.yaml follows from what was asked for, and costs more than all that depends on the state.
    once = mock.patch("training.planning.decide.run_config", functools.cache(run_config))
    try:
        with contextlib.chdir(scratch / "top"), once:
            yield Place(scratch / "top", scratch / "pool")
    finally:
        shutil.rmtree(scratch)


def seen_by_the_program(command: AutoResume, promises: Promises, own: Path) -> Iterator[str]:
    """Yield what is wrong with what the program would do next; `own` is the folder of the run that it is asked for."""
    try:
        facts = collect_facts(command)
        plan = decide(command, facts)
    except UserError as error:
        yield f"--auto_resume is refused: {error}"
        return
    yield from (f"{file.path} cannot be used: {file.reason}" for file in facts.run.unusable)
    furthest = promises.furthest_in(own)
    if furthest is None or plan.run.move_journal.exists():
        return
    if plan.checkpoint is None:
        yield f"--auto_resume starts anew ({plan.reason}), and {furthest} was promised"
    elif plan.checkpoint.position < furthest:
        yield f"--auto_resume goes on from {plan.checkpoint.position}, and {furthest} was promised"


def looks(state: State, labels: Labels) -> int:
    """Return a number that is the same for two states between which the program sees no difference but times."""
    seen, ids = set(), dict[str, int]()
    for path, inode in sorted(state.disk.paths().items()):
        content = state.disk.contents.get(inode, b"")
        what: object = state.disk.links.get(inode, inode in state.disk.folders)
        if is_checkpoint(path):
            label = labels.of(content)
            run = ids.setdefault(label.run_id, len(ids)) if label else 0  # an id is drawn: which have the same, is seen
            what = (label.position, label.kind, label.name, run, content[8:10]) if label else zlib.crc32(content)
        elif path.endswith(".csv"):
            what = content.count(b"\n")
        elif path.endswith(".html"):
            what = _EPOCHS_TOLD.findall(content[:1000])
        elif is_read(path):
            what = zlib.crc32(_TIMES.sub(b"", content))
        seen.add((_RANDOM.sub("", path), str(what)))
    return int.from_bytes(hashlib.blake2b(repr(sorted(seen)).encode(), digest_size=8).digest(), "little")
