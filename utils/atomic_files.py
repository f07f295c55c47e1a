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
6. What a killed process left behind has a recognisable name; removing it touches no other file, not the content
   of a file that it was a second name of, and nothing that a living process is writing
   (`test_only_files_with_the_temporary_prefix_are_removed`,
   `test_a_stray_link_is_removed_and_the_file_it_named_is_whole`,
   `test_what_a_living_process_is_writing_stays_and_goes_once_it_was_killed`).
7. An error that shows when the file is closed, as NFS reports a full disk, is one of writing
   (`test_a_disk_that_says_at_the_close_that_it_is_full_leaves_the_old_file`).

Not guaranteed:

* Two processes that replace one name: each content is whole, the last rename wins. That needs the run folder's lock.
* Owner, mode and attributes of the file replaced: the new one follows the umask as open() would
  (`test_a_new_file_follows_the_umask`).
* A symbolic link at the path: it is replaced, its target stays as it was
  (`test_a_symbolic_link_is_replaced_and_what_it_points_to_is_kept`).
* On file systems without locks what a living process writes looks like what a killed one left.
* Drives that acknowledge a flush they did not do (on macOS fsync stops at the drive's cache), and file systems that
  cannot fsync a folder (`fsync_folder` says which errors mean that).
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from utils.regular_files import open_regular

TEMPORARY_PREFIX = ".tmp-"

_COPY_BUFFER_BYTES = 4 * 2**20
_FOLDER_FSYNC_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
_MOMENT_S = 0.05
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
        with _created(temporary) as file:
            try:
                yield file
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
        with suppress(OSError):  # nothing was written through it
            os.close(descriptor)
    return True


def temporaries_in(folder: Path, of: str = "") -> list[str]:
    """Return the names of the temporaries of the file called `of`, or of all files, in a folder; [] for no folder."""
    pattern = re.compile(rf"{re.escape(TEMPORARY_PREFIX + of)}-\d+-[0-9a-f]{{8}}" if of else f"{TEMPORARY_PREFIX}.*")
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        )


def remove_stray_temporaries(folder: Path, of: str = "") -> list[str]:
    """Remove what killed processes left in `folder`, as `temporaries_in` finds it, and return the names.

    What another process writes stays; this one must write none of them meanwhile, since its own locks do not hold it
    up.
    """
    names = [name for name in temporaries_in(folder, of) if not _is_being_written(folder / name)]
    if names:
        time.sleep(_MOMENT_S)  # of one that was closed and not renamed yet
    names = [name for name in names if os.path.lexists(folder / name) and not _is_being_written(folder / name)]
    for name in names:
        (folder / name).unlink(missing_ok=True)
    return names


def hold_temporary(file: BinaryIO) -> None:
    """Lock a file that is being written, so that no other process takes it for what a killed one left.

    The lock ends with this process, is not inherited by its children, and is lost when the process closes another
    handle of the file: then it is taken again by this. Where the file system cannot lock, nothing is done.
    """
    with suppress(OSError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_being_written(temporary: Path) -> bool:
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # it is gone, or cannot be looked at: removing it tells
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:  # the file system has no locks
        return False
    finally:
        with suppress(OSError):
            os.close(descriptor)
    return False


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


def _created(temporary: Path) -> BinaryIO:
    """Create a file and hold it; one that was taken for a stray before it was held is created again."""
    while True:
        file = cast(BinaryIO, temporary.open("x+b"))
        hold_temporary(file)
        try:
            if os.path.samestat(os.fstat(file.fileno()), temporary.lstat()):
                return file
        except FileNotFoundError:
            pass
        file.close()


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
    """Create a folder and its missing parents, and return once their names survive a power cut.

    The names of those that are there are synced too, down from where a relative path begins: who made them may have
    been killed before that.
    """
    missing = {folder.parent for folder in (path, *path.parents) if not folder.exists()}
    path.mkdir(parents=True, exist_ok=True)
    around = [path.parent] if path.is_absolute() else path.parents
    for parent in dict.fromkeys((*missing, *around)):
        try:
            fsync_folder(parent)
        except PermissionError:  # it cannot be opened, as a folder can be that others made
            if parent in missing:
                raise
