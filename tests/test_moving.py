"""What moves between folders has a name at every instant, whatever of it is on the disk, and links still lead."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tracing import needs_strace, traced
from utils.moving import move_durably

CODE = "import sys\nfrom pathlib import Path\nfrom utils.moving import move_durably\n"
MOVE = f"{CODE}move_durably(['a.pth', 'figures', 'best.pth'], Path('run'), Path('run/version_1'))"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    folder = Path("run")
    (folder / "figures").mkdir(parents=True)
    (folder / "a.pth").write_text("a checkpoint")
    (folder / "best.pth").hardlink_to(folder / "a.pth")
    (folder / "figures" / "spoof.png").write_text("a picture")
    (folder / "stays.pth").write_text("another one")
    yield folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


MOVED = {
    "stays.pth": "another one",
    "version_1/a.pth": "a checkpoint",
    "version_1/best.pth": "a checkpoint",
    "version_1/figures/spoof.png": "a picture",
}


def synced_and_gone(trace: str) -> list[str]:
    """Return the folders that were synced and the files that lost their names, in the order of the trace."""
    pattern = r"fsync\(\d+<[^>]*/(run[^>]*)>\)|(?:unlink|rmdir)\w*\((?:AT_FDCWD<[^>]*>, )?\"([^\"]+)\""
    return [synced or f"no {gone}" for synced, gone in re.findall(pattern, trace)]


@needs_strace
def test_no_old_name_goes_before_all_new_names_are_synced(run: Path, tmp_path: Path) -> None:
    """On a file system that orders nothing, any part of what is not synced may be there after a power cut."""
    strace = [
        "-y",
        "-o",
        "trace",
        "-e",
        "trace=/^link,/^unlink,rmdir,mkdir,fsync,/^rename",
    ]
    done = traced(strace, [sys.executable, "-c", MOVE], tmp_path)
    assert done.returncode == 0, done.stderr
    trace = Path("trace").read_text()
    assert not re.search(r"rename\w*\(.*version_1", trace)
    steps = synced_and_gone(trace)
    first_gone = next(number for number, step in enumerate(steps) if step.startswith("no "))
    assert {"run", "run/version_1", "run/version_1/figures"} <= set(steps[:first_gone])
    assert steps[-1] == "run", "the loss of the old names is synced too"
    gone = {"no run/a.pth", "no run/best.pth", "no run/figures/spoof.png", "no run/figures"}
    assert gone == set(steps[first_gone:-1])
    assert contents(run) == MOVED


@needs_strace
@pytest.mark.parametrize("number", range(1, 4))
@pytest.mark.parametrize("call", ["rename", "unlink"])
def test_without_hard_links_it_is_copied_and_a_kill_in_between_is_completed(
    run: Path, tmp_path: Path, call: str, number: int
) -> None:
    """A copy and its source are two files of the same bytes, which is no collision."""
    strace = ["-o", "/dev/null", "-e", "inject=/^link:error=EPERM"]
    kill = ["-e", f"inject=/^{call}:signal=KILL:error=EINTR:when={number}"]
    before = (run / "a.pth").stat().st_mtime_ns
    assert traced([*strace, *kill], [sys.executable, "-c", MOVE], tmp_path).returncode != 0
    found = contents(run)
    assert {text for name, text in found.items() if ".tmp-" not in name} == set(MOVED.values())
    done = traced(strace, [sys.executable, "-c", MOVE], tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(run) == MOVED
    assert (run / "version_1" / "a.pth").stat().st_mtime_ns == before


def test_a_name_that_something_else_has_is_refused_before_anything_is_moved(run: Path) -> None:
    (run / "version_1" / "figures").mkdir(parents=True)
    (run / "version_1" / "figures" / "spoof.png").write_text("of somebody else")
    before = contents(run)
    with pytest.raises(FileExistsError, match=re.escape("spoof.png")):
        move_durably(["a.pth", "figures"], run, run / "version_1")
    assert contents(run) == before


# (where a link lies, what it says, what it says after it was moved, where it leads)
LINKS = [
    ("x.pth", "../elsewhere.pth", "../../elsewhere.pth", "elsewhere.pth"),
    ("x.pth", "stays.pth", "../stays.pth", "run/stays.pth"),
    ("x.pth", "a.pth", "a.pth", "run/version_1/a.pth"),
    ("x.pth", "figures/spoof.png", "figures/spoof.png", "run/version_1/figures/spoof.png"),
    ("figures/x.png", "spoof.png", "spoof.png", "run/version_1/figures/spoof.png"),
    ("figures/x.png", "../a.pth", "../a.pth", "run/version_1/a.pth"),
    ("figures/x.png", "../stays.pth", "../../stays.pth", "run/stays.pth"),
    ("figures/x.png", "../../elsewhere.pth", "../../../elsewhere.pth", "elsewhere.pth"),
]


@pytest.mark.parametrize(("place", "text", "moved_text", "leads_to"), LINKS)
def test_a_relative_link_leads_where_it_led(run: Path, place: str, text: str, moved_text: str, leads_to: str) -> None:
    Path("elsewhere.pth").write_text("of another run")
    (run / place).symlink_to(text)
    move_durably(["a.pth", "figures", "x.pth"], run, run / "version_1")
    moved = run / "version_1" / place
    assert (str(moved.readlink()), moved.resolve()) == (moved_text, Path(leads_to).resolve())
    assert not os.path.lexists(run / place)


def test_an_absolute_link_leads_where_it_led_also_if_that_was_moved(run: Path) -> None:
    (run / "x.pth").symlink_to((run / "a.pth").absolute())
    (run / "y.pth").symlink_to((run / "stays.pth").absolute())
    move_durably(["a.pth", "x.pth", "y.pth"], run, run / "version_1")
    assert (run / "version_1" / "x.pth").read_text() == "a checkpoint"
    assert (run / "version_1" / "y.pth").read_text() == "another one"


@pytest.mark.parametrize("done", ["given its new name", "moved"])
def test_a_link_of_an_interrupted_move_is_no_collision(run: Path, done: str) -> None:
    (run / "x.pth").symlink_to("../elsewhere.pth")
    (run / "version_1").mkdir()
    (run / "version_1" / "x.pth").symlink_to("../../elsewhere.pth")
    if done == "moved":
        (run / "x.pth").unlink()
    move_durably(["x.pth"], run, run / "version_1")
    assert str((run / "version_1" / "x.pth").readlink()) == "../../elsewhere.pth"
    assert not os.path.lexists(run / "x.pth")
