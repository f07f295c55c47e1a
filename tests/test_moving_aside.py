"""An earlier run is moved into its version folder whole, whatever kills the process meanwhile, and replaces nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from training.runs.directory import RunDirectory
from training.runs.moving_aside import complete_interrupted_move, move_aside
from training.runs.survey import survey_folder

RUN = RunDirectory(Path("models/run"))
ENTRIES = ("attention_epoch_1", "checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth", "training_log.csv")
LOGS = ("events.out.tfevents.1", "events.out.tfevents.2")
STRACE = shutil.which("strace")
# A trial run: strace can be installed and still be forbidden, as in many containers.
STRACE_WORKS = STRACE is not None and subprocess.run([STRACE, "true"], capture_output=True, check=False).returncode == 0


def contents(folder: Path) -> dict[str, str]:
    """Return every file below a folder with its text."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def trained(workplace: Path) -> RunDirectory:
    """A run with two checkpoints, a log, heatmaps and TensorBoard files."""
    (RUN.folder / "attention_epoch_1").mkdir(parents=True)
    (RUN.folder / "attention_epoch_1" / "spoof.png").write_text("a heatmap")
    for name in ENTRIES[1:]:
        (RUN.folder / name).write_text(f"first {name}")
    RUN.lock.write_text("")
    RUN.logs_folder.mkdir(parents=True)
    for name in LOGS:
        (RUN.logs_folder / name).write_text(f"first {name}")
    return RUN


def is_moved(version: int, before: dict[str, str], logs_before: dict[str, str]) -> bool:
    """Return whether everything of a run, as it was, is in one version folder and nowhere else."""
    moved = contents(RUN.folder)
    expected = {f"version_{version}/{name}": text for name, text in before.items() if name != ".lock"} | {".lock": ""}
    logs = {f"version_{version}/{name}": text for name, text in logs_before.items()}
    return moved == expected and contents(RUN.logs_folder) == logs


def test_a_run_and_its_logs_move_into_folders_of_the_same_number(trained: RunDirectory) -> None:
    before, logs_before = contents(RUN.folder), contents(RUN.logs_folder)
    found = survey_folder(RUN.folder)
    assert found.entries == ENTRIES
    move_aside(trained, found.entries, found.next_version)
    assert is_moved(1, before, logs_before)


def test_only_the_entries_named_are_moved(trained: RunDirectory) -> None:
    move_aside(trained, ["checkpoint_epoch_2.pth"], 1)
    assert survey_folder(RUN.folder).entries == tuple(name for name in ENTRIES if name != "checkpoint_epoch_2.pth")
    assert (RUN.version_folder(1) / "checkpoint_epoch_2.pth").read_text() == "first checkpoint_epoch_2.pth"


@pytest.mark.parametrize(
    ("runs", "logs", "expected"),
    [
        ((), (), 1),
        ((1, 2), (), 3),
        ((), (1, 4), 5),
        ((7,), (2,), 8),
        ((9, 10), (), 11),
        ((3,), (3,), 4),
    ],
    ids=["none yet", "runs only", "logs only", "runs are ahead", "numbers, not names", "both"],
)
def test_the_number_is_one_more_than_the_highest_in_either_place(
    workplace: Path, runs: tuple[int, ...], logs: tuple[int, ...], expected: int
) -> None:
    for number in runs:
        RUN.version_folder(number).mkdir(parents=True)
    for number in logs:
        RUN.logs_version_folder(number).mkdir(parents=True)
    assert survey_folder(RUN.folder).next_version == expected


def test_earlier_versions_and_their_logs_stay_where_they_are(trained: RunDirectory) -> None:
    move_aside(trained, ENTRIES, 1)
    (RUN.folder / "checkpoint_epoch_1.pth").write_text("second")
    (RUN.logs_folder / "events.out.tfevents.3").write_text("second")
    move_aside(trained, ["checkpoint_epoch_1.pth"], survey_folder(RUN.folder).next_version)
    assert (RUN.version_folder(1) / "checkpoint_epoch_1.pth").read_text() == "first checkpoint_epoch_1.pth"
    assert (RUN.version_folder(2) / "checkpoint_epoch_1.pth").read_text() == "second"
    assert sorted(path.name for path in RUN.logs_folder.iterdir()) == ["version_1", "version_2"]


@pytest.mark.parametrize("folder", [RUN.version_folder(1), RUN.logs_version_folder(1)], ids=["run", "logs"])
def test_nothing_is_overwritten(trained: RunDirectory, folder: Path) -> None:
    taken = folder / ("checkpoint_epoch_2.pth" if folder.parent == RUN.folder else LOGS[1])
    folder.mkdir()
    taken.write_text("of somebody else")
    before = sorted(contents(RUN.folder).values()) + sorted(contents(RUN.logs_folder).values())
    with pytest.raises(FileExistsError, match=taken.name):
        move_aside(trained, ENTRIES, 1)
    assert taken.read_text() == "of somebody else"
    RUN.move_journal.unlink()
    assert sorted(contents(RUN.folder).values()) + sorted(contents(RUN.logs_folder).values()) == before


def test_a_run_without_logs_is_moved_and_no_empty_folder_is_made(trained: RunDirectory) -> None:
    shutil.rmtree(RUN.logs_folder)
    move_aside(trained, ENTRIES, 1)
    assert not RUN.logs_folder.exists()


def test_where_nothing_was_interrupted_nothing_is_done(trained: RunDirectory) -> None:
    before = contents(RUN.folder)
    assert complete_interrupted_move(trained) is None
    assert contents(RUN.folder) == before


# What a move does: the journal gets its name; new names for 4 files and 2 logs, and a folder; the old names and the
# journal go.
STEPS = [("rename", 1), *(("link", number) for number in range(1, 7)), *(("unlink", number) for number in range(1, 8))]
STEPS += [("rmdir", 1), ("mkdir", 1), ("mkdir", 2)]


@pytest.mark.skipif(not STRACE_WORKS, reason="needs strace, and leave to trace a child process")
@pytest.mark.parametrize(("call", "number"), STEPS)
def test_a_kill_at_any_step_is_completed_at_the_next_start(trained: RunDirectory, call: str, number: int) -> None:
    before, logs_before = contents(RUN.folder), contents(RUN.logs_folder)
    code = (
        "from pathlib import Path; from training.runs.moving_aside import move_aside; "
        "from training.runs.directory import RunDirectory; "
        f"move_aside(RunDirectory(Path({str(RUN.folder)!r})), {ENTRIES!r}, 1)"
    )
    inject = f"inject=/^{call}:signal=KILL:error=EINTR:when={number}"
    killed = subprocess.run(
        [str(STRACE), "-f", "-o", "/dev/null", "-e", f"trace=/^{call}", "-e", inject, sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=False,
    )
    assert killed.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}, killed.stderr
    journal_is_durable = (call, number) != ("rename", 1)
    assert RUN.move_journal.exists() == journal_is_durable
    found = survey_folder(RUN.folder)
    if journal_is_durable:
        assert found.entries == (), "what is still to be moved must count as moved"
        assert found.next_version == 2, "the number of an interrupted move is taken"
        assert complete_interrupted_move(trained) == 1
        assert is_moved(1, before, logs_before)
    else:
        assert found.entries == ENTRIES, "nothing was begun"
    assert complete_interrupted_move(trained) is None


def test_completing_can_be_interrupted_and_repeated(trained: RunDirectory) -> None:
    before, logs_before = contents(RUN.folder), contents(RUN.logs_folder)
    journal = {"version": 1, "entries": list(ENTRIES), "log_entries": list(LOGS)}
    RUN.move_journal.write_text(json.dumps(journal))
    RUN.version_folder(1).mkdir()
    for name in ENTRIES[:3]:
        (RUN.folder / name).rename(RUN.version_folder(1) / name)
    assert complete_interrupted_move(trained) == 1
    assert is_moved(1, before, logs_before)


def test_a_file_that_a_power_cut_left_under_both_names_is_moved(trained: RunDirectory) -> None:
    before, logs_before = contents(RUN.folder), contents(RUN.logs_folder)
    journal = {"version": 1, "entries": list(ENTRIES), "log_entries": list(LOGS)}
    RUN.move_journal.write_text(json.dumps(journal))
    RUN.version_folder(1).mkdir()
    (RUN.version_folder(1) / ENTRIES[1]).hardlink_to(RUN.folder / ENTRIES[1])
    assert complete_interrupted_move(trained) == 1
    assert is_moved(1, before, logs_before)


def test_the_two_names_of_the_best_checkpoint_stay_one_file(trained: RunDirectory) -> None:
    (RUN.folder / "best_checkpoint_eer.pth").hardlink_to(RUN.folder / "checkpoint_epoch_2.pth")
    move_aside(trained, survey_folder(RUN.folder).entries, 1)
    aside = RUN.version_folder(1)
    assert (aside / "best_checkpoint_eer.pth").samefile(aside / "checkpoint_epoch_2.pth")
