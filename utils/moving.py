"""Moves what lies in a folder into another one, such that it has one name at least, whatever a crash leaves.

A rename between two folders changes both, and a file system without a journal may bring one of the changes to disk and
not the other: a power cut then leaves neither name. So everything gets its new name first, as a hard link, or a copy
where those are refused, and folders are made anew for what is in them. The new names are synced, and only then do the
old ones go. A move that was cut off anywhere is completed by the same call. Nothing is ever overwritten.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from utils.atomic_files import HARD_LINK_REFUSED, atomic_write, fsync_folder, make_folder, remove_stray_temporaries

_COPY_BUFFER_BYTES = 4 * 2**20


def move_durably(names: Sequence[str], folder: Path, target: Path) -> None:
    """Move the entries of `folder` that are called `names` into `target`, which is made; what is gone was moved before.

    Links keep leading where they led. Returns once all of it survives a power cut. Raises FileExistsError, before
    anything is moved, where `target` has another file of such a name, and OSError.
    """
    if not folder.is_dir():
        return
    left = [name for name in names if os.path.lexists(folder / name)]
    if left:
        move = _Move(folder, target, frozenset(names))
        remove_stray_temporaries(target)
        for name in left:
            move.insist_free(Path(name))
        make_folder(target)
        for name in left:
            move.give_new_name(Path(name))
        fsync_folder(target)
        for name in left:
            move.take_old_name(Path(name))
    fsync_folder(folder)


@dataclass(frozen=True)
class _Move:
    """One move; its methods take paths relative to `folder`, `names` are all entries that move."""

    folder: Path
    target: Path
    names: frozenset[str]

    def insist_free(self, entry: Path) -> None:
        """Raise FileExistsError where the new name of an entry, or of one below it, has something else."""
        source, target = self.folder / entry, self.target / entry
        if not os.path.lexists(target):
            return
        if _is_folder(source) and _is_folder(target):
            for child in source.iterdir():
                self.insist_free(entry / child.name)
        elif not self._is_moved(source, target, entry):
            raise FileExistsError(errno.EEXIST, "the new name is taken", str(source), None, str(target))

    def _is_moved(self, source: Path, target: Path, entry: Path) -> bool:
        """Whether an interrupted move has given this new name."""
        if source.is_symlink():
            return target.is_symlink() and str(target.readlink()) == self._text_of_link(entry)
        if os.path.samestat(source.lstat(), target.lstat()):
            return True
        are_files = all(stat.S_ISREG(path.lstat().st_mode) for path in (source, target))
        return are_files and filecmp.cmp(source, target, shallow=False)  # a copy

    def give_new_name(self, entry: Path) -> None:
        """Give an entry, and what is below it, its name in the target; folders are synced but for the target."""
        source, target = self.folder / entry, self.target / entry
        if _is_folder(source):
            target.mkdir(exist_ok=True)
            remove_stray_temporaries(source)
            remove_stray_temporaries(target)
            for child in source.iterdir():
                self.give_new_name(entry / child.name)
            with suppress(OSError):  # its times, and who may read it
                shutil.copystat(source, target)
            fsync_folder(target)
        elif os.path.lexists(target):
            pass  # by an earlier call, see `insist_free`
        elif source.is_symlink():
            target.symlink_to(self._text_of_link(entry))
        else:
            _link_or_copy(source, target)

    def take_old_name(self, entry: Path) -> None:
        """Remove an entry, and what is below it, whose new names are durable."""
        source = self.folder / entry
        if _is_folder(source):
            for child in source.iterdir():
                self.take_old_name(entry / child.name)
            source.rmdir()
        else:
            source.unlink(missing_ok=True)

    def _text_of_link(self, entry: Path) -> str:
        """Return what a symbolic link says in its new place, so that it leads to the same file."""
        text = str((self.folder / entry).readlink())
        if Path(text).is_absolute():
            inside = os.path.relpath(text, self.folder.absolute())
            return str(self.target.absolute() / inside) if self._moves(inside) else text
        leads_to = os.path.normpath(entry.parent / text)
        if self._moves(leads_to):
            return text
        back = os.path.relpath(self.folder.resolve(), (self.target / entry).parent.absolute().resolve())
        return os.path.join(back, text if entry.parent == Path() else leads_to)  # noqa: PTH118 (keeps `..` as it is)

    def _moves(self, path: str) -> bool:
        return not self.names.isdisjoint(Path(path).parts[:1])


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in HARD_LINK_REFUSED:
            raise
        status = source.lstat()
        if not stat.S_ISREG(status.st_mode):  # it has no content that could be lost
            source.rename(target)
            return
        with source.open("rb") as original, atomic_write(target) as copy:
            shutil.copyfileobj(original, copy, _COPY_BUFFER_BYTES)
            copy.flush()
            os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
