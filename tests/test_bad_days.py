"""Folders that vanish, disks that break, file systems that lack something: a run goes on, loses nothing and says so."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from main import main
from tests.comparing import assert_same_training, bits, differences, log_rows
from tests.conftest import REPOSITORY, SMALL_RUN, DuringStep
from tests.small_disk import break_disk, mounted
from tests.tracing import needs_strace, traced_program
from tests.warm_start import WarmProgram
from training.checkpoints.sealed_file import broken_seal
from utils.atomic_files import TEMPORARY_PREFIX

STEPS_PER_EPOCH = 3


def flags(corpus: Path, epochs: int = 3) -> list[str]:
    return [*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", str(epochs), "--sync_save"]


def train(folder: Path, corpus: Path, epochs: int = 3) -> None:
    with WarmProgram(folder, *flags(corpus, epochs)) as program:
        code, said = program.end()
    assert code == 0, said


def the_run(place: Path = Path()) -> Path:
    (folder,) = (place / "models").iterdir()
    return folder


def epochs_saved(place: Path = Path()) -> list[str]:
    """Return the numbers of the epoch files, all of which are whole, as is every other."""
    assert not list(place.rglob(f"{TEMPORARY_PREFIX}*"))
    assert [broken_seal(path) for path in place.glob("models/*/*.pth")] == [None] * len(
        list(place.glob("models/*/*.pth"))
    )
    return sorted(path.stem.rpartition("_")[2] for path in place.glob("models/*/checkpoint_epoch_*.pth"))


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, corpus)
    return the_run(folder)


def test_a_run_folder_that_is_removed_while_it_trains_is_made_again_at_the_next_save(
    workplace: Path, corpus: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    during_step({STEPS_PER_EPOCH + 1: lambda: shutil.rmtree(the_run())})
    assert main(flags(corpus)) == 0
    assert epochs_saved() == ["2", "3"]
    assert re.search(r"\[WARNING\] models/\S+ was removed, replaced or unmounted", capsys.readouterr().out)
    assert len(log_rows(the_run())) == 1 + 3
    assert "num_epochs" in (the_run() / "config.yaml").read_text()


def test_what_the_removed_run_folder_held_of_the_best_epoch_is_told_as_lost(
    workplace: Path, corpus: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the resolution of float32 no step changes a weight, so the first epoch stays the best."""
    during_step({STEPS_PER_EPOCH + 1: lambda: shutil.rmtree(the_run())})
    assert main([*flags(corpus), "--lr", "1e-30"]) == 0
    assert "the best epoch so far is 1, and its checkpoint is not there any more" in capsys.readouterr().out


def test_a_disk_that_is_unmounted_while_it_trains_costs_no_later_epoch(
    workplace: Path, corpus: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lazily, as `umount -l` and a dying disk do it: what was open stays open, and is out of reach by its name."""
    Path("models").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", "models"], capture_output=True, check=False).returncode:
        pytest.skip("needs leave to mount a file system")
    unmount = ["umount", "--lazy", "models"]
    during_step({STEPS_PER_EPOCH + 1: lambda: subprocess.run(unmount, check=True)})
    try:
        assert main(flags(corpus)) == 0
    finally:
        subprocess.run(unmount, capture_output=True, check=False)  # where it failed before
    assert epochs_saved() == ["2", "3"]
    assert re.search(r"\[WARNING\] models/\S+ was removed, replaced or unmounted", capsys.readouterr().out)


def hold(lock: Path) -> subprocess.Popen[str]:
    """Start another process that trains in the folder of `lock`, as far as the lock can tell."""
    lock.parent.mkdir(parents=True)
    code = (
        "import sys, pathlib\nfrom training.runs.lock import RunLock\n"
        "with RunLock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.readline()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(lock.absolute())],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_nothing_is_written_into_a_folder_that_another_process_has_taken_meanwhile(
    workplace: Path, corpus: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    others: list[subprocess.Popen[str]] = []

    def take_over() -> None:
        folder = the_run()
        shutil.rmtree(folder)
        others.append(hold(folder / ".lock"))

    def leave() -> None:
        assert {path.name for path in the_run().glob("*.pth")} == set(), "it wrote into another process's folder"
        others[0].communicate("\n")
        the_run().rename("of_the_other")

    during_step({STEPS_PER_EPOCH + 1: take_over, 2 * STEPS_PER_EPOCH + 1: leave})
    assert main(flags(corpus)) == 0
    assert epochs_saved() == ["2", "3"]
    said = capsys.readouterr().out
    assert re.search(rf"epoch_2.pth could not be saved: another process trains in .*process {others[0].pid}\)", said)


@needs_strace
def test_without_hard_links_the_best_checkpoint_is_a_copy_and_that_is_said_once(
    corpus: Path, tmp_path: Path, undisturbed: Path
) -> None:
    code, said = traced_program(["-o", "/dev/null", "-e", "inject=/^link:error=EPERM"], tmp_path, *flags(corpus))
    assert code == 0, said
    assert said.count("[NOTE]") == said.count("no hard links here") == 1
    assert the_run(tmp_path).joinpath("best_checkpoint_eer.pth").stat().st_nlink == 1
    assert_same_training(the_run(tmp_path), undisturbed)


@needs_strace
def test_without_locks_and_fsync_of_folders_it_trains_and_says_so_once_each(
    corpus: Path, tmp_path: Path, undisturbed: Path
) -> None:
    folder = tmp_path / "models" / undisturbed.name
    folder.mkdir(parents=True)
    only_there = ["-P", str(folder), "-P", str(folder / ".lock")]
    refusals = ["-e", "inject=fsync:error=EINVAL", "-e", "inject=fcntl:error=ENOLCK"]
    code, said = traced_program(["-o", "/dev/null", *only_there, *refusals], tmp_path, *flags(corpus))
    assert code == 0, said
    assert said.count("[NOTE]") == 2
    assert said.count("cannot lock files (No locks available)") == 1
    assert said.count("folders cannot be synced here") == 1
    assert_same_training(the_run(tmp_path), undisturbed)


def fsync_calls(trace: Path) -> list[tuple[str, str]]:
    """Return the thread and the synced path of each fsync in a trace."""
    return re.findall(r"^(\d+) +fsync\(\d+<([^>]*)>", trace.read_text(), re.MULTILINE)


@needs_strace
def test_a_failed_fsync_costs_nothing_and_a_second_try_writes_a_new_file(
    corpus: Path, tmp_path: Path, undisturbed: Path
) -> None:
    """strace counts the calls of each thread, so an undisturbed run says which one is to fail."""
    looked, failed = tmp_path / "looked", tmp_path / "failed"
    looked.mkdir()
    failed.mkdir()
    traced_program(["-y", "-o", "trace", "-e", "trace=fsync"], looked, *flags(corpus))
    calls = fsync_calls(looked / "trace")
    (thread,) = {thread for thread, path in calls if f"{TEMPORARY_PREFIX}checkpoint_epoch_2" in path}
    of_thread = [path for number, path in calls if number == thread]
    when = 1 + next(i for i, path in enumerate(of_thread) if f"{TEMPORARY_PREFIX}checkpoint_epoch_2" in path)

    strace = ["-y", "-o", "trace", "-e", "trace=fsync", "-e", f"inject=fsync:error=EIO:when={when}"]
    code, said = traced_program(strace, failed, *flags(corpus))
    assert code == 0, said
    assert "checkpoint_epoch_2.pth could not be saved: Input/output error; earlier checkpoints are" in said
    (failing,) = re.findall(r"fsync\(\d+<(.*)>\).*INJECTED", (failed / "trace").read_text())
    assert f"{TEMPORARY_PREFIX}checkpoint_epoch_2" in failing
    assert (failed / "trace").read_text().count(failing) == 1, "an fsync that failed was repeated"
    assert epochs_saved(failed) == ["1", "2", "3"]
    assert_same_state(the_run(failed), undisturbed, epoch=3)
    assert log_rows(the_run(failed)) == log_rows(undisturbed)


def assert_same_state(one: Path, other: Path, epoch: int) -> None:
    """Compare all but what says which epochs the disk refused."""
    name = f"checkpoint_epoch_{epoch}.pth"
    payloads = [{**bits(folder / name), "lost_epochs": [], "best_val_eer": 0} for folder in (one, other)]
    assert differences(payloads[0], payloads[1]) == []


def test_a_disk_that_turns_read_only_keeps_what_is_there_and_makes_the_exit_code_1(
    disk_that_breaks: Path, corpus: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    during_step({STEPS_PER_EPOCH + 1: lambda: break_disk(disk_that_breaks)})
    assert main(flags(corpus)) == 1
    assert epochs_saved() == ["1"]
    said = capsys.readouterr()
    assert "checkpoint_epoch_2.pth could not be saved: Read-only file system; earlier checkpoints are" in said.out
    assert "training_log.csv could not be written: Read-only file system" in said.out
    assert re.search(r"epoch_3.pth could not be saved: .*; the last one is models/\S+/checkpoint_epoch_1.pth", said.err)
    assert "Traceback" not in said.err


def send_all_along(program: WarmProgram) -> str:
    """Send SIGUSR1 to the whole group, from the first line that the program says until it is done."""
    said = program.stdout.readline()
    while program.is_running():
        os.killpg(program.pid, signal.SIGUSR1)
        program.wait(0.05)
    return said


def test_sigusr1_to_the_whole_group_at_any_time_ends_nothing_and_changes_no_bit(
    corpus: Path, tmp_path: Path, undisturbed: Path
) -> None:
    """As Slurm sends it; the workers too get it, while they start and while they read."""
    with WarmProgram(tmp_path, *flags(corpus), "--num_workers", "2") as program:
        first = send_all_along(program)
        code, said = program.end()
    assert code == 0, first + said
    assert "SIGUSR1: saving after this step, then going on" in said
    assert_same_training(the_run(tmp_path), undisturbed)


def test_a_read_only_place_is_a_sentence_before_anything_is_trained(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64m", "none") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        monkeypatch.chdir(disk)
        assert main(flags(corpus)) == 1
        monkeypatch.undo()
    said = capsys.readouterr()
    assert said.err.startswith("error: models cannot be written (Read-only file system), and nothing was trained")
    assert said.err.count("\n") == 1 and "Epoch 1" not in said.out


def test_a_run_folder_that_turned_read_only_is_a_sentence_and_stays_as_it_is(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64m", "none") as disk:
        monkeypatch.chdir(disk)
        assert main(flags(corpus, epochs=1)) == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        before = sorted(path.name for path in the_run().iterdir())
        capsys.readouterr()
        assert main([*flags(corpus, epochs=1), "--fresh_start"]) == 1
        assert sorted(path.name for path in the_run().iterdir()) == before
        monkeypatch.undo()
    error = capsys.readouterr().err
    assert "cannot be written (Read-only file system), and nothing was trained" in error and error.count("\n") == 1


# Root may write anywhere by this capability.
_WITHOUT_LEAVE = """
import ctypes
VERSION_3, CAP_DAC_OVERRIDE = 0x20080522, 1
head, held = (ctypes.c_uint32 * 2)(VERSION_3, 0), (ctypes.c_uint32 * 6)()
kernel = ctypes.CDLL(None)
assert kernel.capget(head, held) == 0
held[0] &= ~(1 << CAP_DAC_OVERRIDE)
assert kernel.capset(head, held) == 0
"""


@pytest.mark.parametrize("what", ["the parent", "the run folder"])
def test_a_folder_without_leave_to_write_is_a_sentence(what: str, corpus: Path, tmp_path: Path) -> None:
    place = tmp_path
    if what == "the run folder":
        train(tmp_path, corpus, epochs=1)
        place = the_run(tmp_path)
        (place / ".lock").chmod(0o444)
    place.chmod(0o555)
    with WarmProgram(tmp_path, *flags(corpus, 1), first=_WITHOUT_LEAVE) as program:
        code, said = program.end()
    place.chmod(0o755)
    assert code == 1
    assert re.search(r"^error: models\S* cannot be written \(Permission denied\), and nothing was trained", said, re.M)
    assert "Traceback" not in said and "Epoch 1" not in said
