"""The one way to replace a file that matters: its name holds the old content or the new, whole, whatever crashes.

Guaranteed, on a local POSIX file system, each held by the test in tests/test_atomic_files.py that is named here:

1. A name passed to `atomic_write` never holds half a file, even if the process is killed while it writes
   (`test_a_process_killed_while_writing_leaves_the_old_file_whole`).
2. Once `atomic_write` returned, content and name survive a power cut: the file is fsynced before the rename, the
   folder after it (`test_the_file_is_synced_before_the_rename_and_the_folder_after_it`).
3. Any exception, Ctrl-C and a full disk included, leaves the old file as it was and no temporary
   (`test_an_exception_while_writing_leaves_the_old_file_and_no_temporary`,
   `test_a_full_disk_leaves_the_old_file_and_no_temporary`).
4. A failed fsync is raised and never repeated: after it the kernel may have dropped the data and report success
   (`test_a_failed_fsync_is_raised_and_never_repeated`).
5. `link_or_copy` replaces its target as atomically, and leaves no temporary where both names are one file already
   (`test_a_link_over_a_name_of_the_same_file_leaves_no_temporary`).
6. What a killed process left behind has a recognisable name; removing it touches no other file, and not the content
   of a file that it was a second name of (`test_only_files_with_the_temporary_prefix_are_removed`,
   `test_a_stray_link_is_removed_and_the_file_it_named_is_whole`).
7. `durable_rename` refuses a target that exists (`test_a_rename_never_replaces_what_is_there`).

Not guaranteed:

* Two processes that replace one name: each content is whole, the last rename wins. The check of 7 is not one step with
  the rename. Both need the run folder's lock.
* Owner, mode and attributes of the file replaced: the new one follows the umask as open() would
  (`test_a_new_file_follows_the_umask`).
* A symbolic link at the path: it is replaced, its target stays as it was
  (`test_a_symbolic_link_is_replaced_and_what_it_points_to_is_kept`).
* Drives that acknowledge a flush they did not do (on macOS fsync stops at the drive's cache), and file systems that
  cannot fsync a folder (`fsync_folder` says which errors mean that).
"""

from __future__ import annotations

import enum
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from utils.regular_files import open_regular

TEMPORARY_PREFIX = ".tmp-"

_COPY_BUFFER_BYTES = 4 * 2**20
_FOLDER_FSYNC_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
HARD_LINK_REFUSED = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class Placement(enum.Enum):
    """How `link_or_copy` put the content under its second name."""

    LINKED = "linked"
    """Both names are one file: no bytes were copied and no space was used."""
    COPIED = "copied"
    """The file system refused a hard link: the target is a file of its own with the same bytes."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file, readable and seekable too, whose content replaces `path` when the block ends well.

    The block may read back what it wrote. On any exception, from the block or from the disk, `path` is what it was,
    unless only the last step failed (the folder's fsync): then `path` is new, and whether it survives a power cut is
    unknown. Raises OSError where the folder is missing or the disk refuses; `disk_error_behind` finds one that a
    library wrapped in an error of its own.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder, "weights.pth")) as file:
    ...         _ = file.write(b"all of it")
    ...     Path(folder, "weights.pth").read_bytes()
    b'all of it'
    """
    temporary = _temporary_beside(path)
    try:
        with temporary.open("x+b") as file:
            try:
                yield cast(BinaryIO, file)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                # Closing writes what is buffered: a full disk must not hide the first error.
                with suppress(OSError):
                    file.close()
                raise
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # a temporary that stays is found at the next start; the first error counts
            temporary.unlink()
        raise
    fsync_folder(path.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """Replace the content of `path` by `text` in UTF-8, newlines as given; raises OSError."""
    with atomic_write(path) as file:
        file.write(text.encode())


def link_or_copy(source: Path, target: Path) -> Placement:
    """Make `target` a second name of `source`, replacing what was there, or a copy where the file system refuses links.

    `source` must be durable already (`atomic_write` made it): its content is not fsynced again. A symbolic link as
    `source` is followed. Raises OSError for everything but the refusals listed in `HARD_LINK_REFUSED`.
    """
    source = source.resolve(strict=True)
    if not _is_same_file(source, target):
        try:
            _replace_by_link(source, target)
        except OSError as error:
            if error.errno not in HARD_LINK_REFUSED:
                raise
            with open_regular(source) as original, atomic_write(target) as copy:
                shutil.copyfileobj(original, copy, _COPY_BUFFER_BYTES)
            return Placement.COPIED
    # Also where nothing was to be done: the process that made the link may have been killed before this line.
    fsync_folder(target.parent)
    return Placement.LINKED


def durable_rename(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that is free, and return once the new name survives a power cut.

    Raises FileExistsError where `target` exists in any form (an empty folder and a dangling link too), and OSError
    where the two lie on different file systems.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "the new name is taken", str(source), None, str(target))
    source.rename(target)
    # The new name first: a power cut between the two may then show both names, but never neither.
    fsync_folder(target.parent)
    if source.parent != target.parent:
        fsync_folder(source.parent)


def fsync_folder(folder: Path) -> bool:
    """Make the names in `folder` survive a power cut; raises OSError.

    Return whether the file system can: EINVAL, ENOSYS and EOPNOTSUPP are no failure, for so say those (some network
    and FUSE ones) that have no such operation.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _FOLDER_FSYNC_UNSUPPORTED:
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def remove_stray_temporaries(folder: Path) -> list[str]:
    """Remove what killed processes left in `folder` and return the names, sorted; [] where `folder` does not exist.

    Call it only where no other process or thread writes in `folder`: a temporary in use looks the same.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if entry.name.startswith(TEMPORARY_PREFIX) and entry.is_file(follow_symlinks=False)
        )
    for name in names:
        (folder / name).unlink()
    return names


def disk_error_behind(error: BaseException) -> OSError | None:
    """Return the OSError that `error` is or came from, or None.

    torch.save reports a full disk as `RuntimeError: ... unexpected pos`, with the OSError of the failed write only in
    `__context__`. A cause is followed before a context.

    >>> try:
    ...     try:
    ...         raise OSError(28, "No space left on device")
    ...     finally:
    ...         raise RuntimeError("unexpected pos 64 vs 0")
    ... except RuntimeError as error:
    ...     print(disk_error_behind(error))
    [Errno 28] No space left on device
    """
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        if isinstance(current, OSError):
            return current
        seen.add(id(current))
        waiting += [current.__context__, current.__cause__]
    return None


def _temporary_beside(path: Path) -> Path:
    """Return a free name in the folder of `path`; process numbers repeat (1 in a container), hence the random part."""
    return path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


def _is_same_file(source: Path, target: Path) -> bool:
    """Return whether `target` is a name of `source` itself; a symbolic link to it is not."""
    try:
        return os.path.samestat(source.stat(), target.lstat())
    except FileNotFoundError:
        return False


def _replace_by_link(source: Path, target: Path) -> None:
    temporary = _temporary_beside(target)
    try:
        temporary.hardlink_to(source)
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, and return once their names survive a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        fsync_folder(folder.parent)
