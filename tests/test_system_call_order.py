"""The order of system calls in a real training, as strace saw it: content, then name, then folder, then deletions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from tests.conftest import SMALL_RUN, command_line
from utils.atomic_files import TEMPORARY_PREFIX

CALLS = "openat,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat"
SAME_AS = {"openat": "create", "pwrite64": "write", "writev": "write", "fdatasync": "fsync"}
SAME_AS |= {"renameat": "rename", "renameat2": "rename", "linkat": "link", "unlinkat": "unlink"}
_LINE = re.compile(r"(?P<thread>\d+) +(?:<\.\.\. (?P<resumed>\w+) resumed>|(?P<call>\w+)\()(?P<rest>.*)")
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Call:
    """One call that succeeded; `began` and `ended` are lines of the trace, `names` the file names it was about."""

    what: str
    names: tuple[str, ...]
    began: int
    ended: int


def calls_in(trace: Sequence[str], folder: str) -> list[Call]:
    """Return the calls that change or sync something in the folder called `folder`, or that folder itself."""
    return [call for found in _joined(trace) if (call := _parsed(*found, folder))]


def _joined(trace: Sequence[str]) -> Iterator[tuple[str, str, int, int]]:
    """Yield name, text and lines of each call; a call that another thread's cut in two is put together."""
    waiting: dict[str, tuple[str, str, int]] = {}
    for number, line in enumerate(trace):
        parts = _LINE.fullmatch(line)
        if parts is None:
            continue
        thread, rest = parts["thread"], parts["rest"]
        if rest.endswith("<unfinished ...>"):
            waiting[thread] = parts["call"], rest, number
        elif parts["resumed"]:
            what, first, began = waiting.pop(thread)
            yield what, first.removesuffix("<unfinished ...>") + rest, began, number
        else:
            yield parts["call"], rest, number, number


def _parsed(what: str, text: str, began: int, ended: int, folder: str) -> Call | None:
    arguments, _, result = text.rpartition(") ")
    if not result.lstrip().startswith("= ") or result.lstrip().startswith("= -"):
        return None
    if what in ("write", "pwrite64", "writev", "fsync", "fdatasync"):
        paths = _DESCRIPTOR.findall(arguments.partition(",")[0])
    elif what == "openat":
        paths = _TEXT.findall(arguments)[:1] if "O_CREAT" in arguments or "O_TRUNC" in arguments else []
    else:
        paths = _TEXT.findall(arguments)
    found = [PurePosixPath(path) for path in paths]
    if not found or not all(folder in (path.parent.name, path.name) for path in found):
        return None
    return Call(SAME_AS.get(what, what), tuple(path.name for path in found), began, ended)


def complaints(calls: Sequence[Call], folder: str) -> list[str]:
    """Return every way in which a power cut or a kill could have cost a checkpoint."""
    return [complaint for call in calls for complaint in _complaints_about(call, calls, folder)]


def _complaints_about(call: Call, calls: Sequence[Call], folder: str) -> Iterator[str]:
    def is_synced(name: str, after: int, before: int | None = None) -> bool:
        end = before if before is not None else calls[-1].ended + 1
        return any(c.what == "fsync" and c.names[0] == name and after < c.began and c.ended < end for c in calls)

    def renames_before(name: str | None) -> list[Call]:
        done = [c for c in calls if c.what == "rename" and c.ended < call.began]
        return [c for c in done if name in (None, c.names[1])]

    first, last = call.names[0], call.names[-1]
    if call.what in ("write", "create") and _is_checkpoint(first):
        yield f"{first} is written under its own name"
    if call.what == "rename" and _is_checkpoint(last):
        written = [c.ended for c in calls if c.what == "write" and c.names[0] == first]
        if written and not is_synced(first, max(written), call.began):
            yield f"{last} has its name before its content is synced"
        if not is_synced(folder, call.ended):
            yield f"{last}: its name is never synced"
    if call.what == "link" and any(not is_synced(folder, c.ended, call.began) for c in renames_before(first)):
        yield f"{first} is linked to {last} before its own name is synced"
    if call.what == "unlink" and _is_checkpoint(first):
        late = [c.names[1] for c in renames_before(None) if not is_synced(folder, c.ended, call.began)]
        yield from (f"{first} is deleted before the name {name} is synced" for name in late)


def _is_checkpoint(name: str) -> bool:
    return name.endswith((".pth", ".pt", ".ckpt")) and not name.startswith(TEMPORARY_PREFIX)


WRITE = '1 write(4</r/run/.tmp-a.pth-1>, "PK"..., 5) = 5'
SYNC = "1 fsync(4</r/run/.tmp-a.pth-1>) = 0"
RENAME = '1 rename("run/.tmp-a.pth-1", "run/a.pth") = 0'
SYNC_FOLDER = "1  fsync(5</r/run>) = 0"
LINK = '1 link("/r/run/a.pth", "run/.tmp-best.pth-1") = 0'
RENAME_LINK = '1 rename("run/.tmp-best.pth-1", "run/best.pth") = 0'
DELETE = '1 unlink("run/old.pth") = 0'
GOOD = [WRITE, SYNC, RENAME, SYNC_FOLDER, LINK, RENAME_LINK, SYNC_FOLDER, DELETE, SYNC_FOLDER]


@pytest.mark.parametrize(
    ("trace", "complaint"),
    [
        (GOOD, None),
        ([WRITE, RENAME, SYNC_FOLDER], "a.pth has its name before its content is synced"),
        ([SYNC, WRITE, RENAME, SYNC_FOLDER], "a.pth has its name before its content is synced"),
        ([WRITE, SYNC.replace("= 0", "= -1 EIO"), RENAME, SYNC_FOLDER], "a.pth has its name before its content"),
        ([WRITE, SYNC, RENAME], "a.pth: its name is never synced"),
        ([WRITE, SYNC, RENAME, DELETE, SYNC_FOLDER], "old.pth is deleted before the name a.pth is synced"),
        ([WRITE, SYNC, RENAME, LINK, RENAME_LINK, SYNC_FOLDER], "a.pth is linked to .tmp-best.pth-1 before its own"),
        ([*GOOD[:6], DELETE, SYNC_FOLDER], "old.pth is deleted before the name best.pth is synced"),
        (['1 write(4</r/run/a.pth>, "PK"..., 5) = 5'], "a.pth is written under its own name"),
        (
            [WRITE, "1 fsync(4</r/run/.tmp-a.pth-1> <unfinished ...>", *GOOD[2:4], "1 <... fsync resumed>) = 0"],
            "a.pth has its name before its content is synced",
        ),
    ],
)
def test_each_wrong_order_is_noticed(trace: list[str], complaint: str | None) -> None:
    """Else the next test would prove nothing. A sync counts from its end, and what follows it from its beginning."""
    found = complaints(calls_in(trace, "run"), "run")
    assert (complaint is None and not found) or (complaint and found[0].startswith(complaint)), found


def test_training_syncs_content_then_name_and_deletes_last(corpus: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    traced = ["strace", "-f", "-y", "-qq", "-s", "0", "-o", str(trace), "-e", f"trace={CALLS}"]
    if shutil.which("strace") is None:
        pytest.skip("strace not found")
    if subprocess.run([*traced, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace here")
    settings = ["--database_path", str(corpus), "--num_epochs", "3", "--save_interval", "2", "--keep_last_n", "1"]
    ended = subprocess.run(
        [*traced, *command_line(*SMALL_RUN, *settings)],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (folder,) = (path.name for path in (tmp_path / "models").iterdir())
    calls = calls_in(trace.read_text(errors="replace").splitlines(), folder)
    named = [call.names[1] for call in calls if call.what == "rename"]
    assert {"checkpoint_epoch_1.pth", "checkpoint_epoch_3.pth", "best_checkpoint_eer.pth"} <= set(named)
    assert complaints(calls, folder) == []
