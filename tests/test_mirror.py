"""A run's second place: what is copied and pruned there, what is told of it, and how a run goes on from it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from main import main
from tests.comparing import bits, differences
from tests.conftest import SMALL_RUN
from tests.records import record, write_checkpoint
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.sealed_file import broken_seal
from training.loop.step import take_step
from training.planning.facts import Facts
from training.runs.directory import RunDirectory
from training.runs.lock import RunLock
from training.runs.mirror_place import mirror_of, mirror_text, refuse_bad_mirror
from training.runs.retention import RetentionPolicy
from training.runs.survey import checkpoint_files, find_latest_usable, survey_folder
from training.saving import mirror_copy
from training.saving.mirror import Mirror
from training.saving.mirror_copy import BadCopyError, MirrorFolder
from training.saving.mirror_restore import restore_from_mirror
from training.settings.identity import run_name
from training.settings.options import Options
from training.settings.requests import AutoResume
from utils.atomic_files import link_or_copy
from utils.errors import UserError
from utils.regular_files import open_to_append

LONG_S = 60.0  # of waits that end by themselves


def saved(folder: Path, epoch: int, *, batches_done: int = 0, run: str = "run-a") -> CheckpointRecord:
    """Save a checkpoint in a run folder, as the last one; the first epoch is the best."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"checkpoint_step_{epoch * 10 + batches_done}.pth" if batches_done else f"checkpoint_epoch_{epoch}.pth"
    made = record(folder / name, epoch, batches_done=batches_done, run=run, name=name, best_epoch=1)
    write_checkpoint(folder / name, made)
    link_or_copy(folder / name, folder / "last_checkpoint.pth")
    if epoch == 1 and not batches_done:
        link_or_copy(folder / name, folder / "best_checkpoint_eer.pth")
    return made


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "run"
    for epoch in (1, 2, 3):
        saved(folder, epoch)
    (folder / "config.yaml").write_text("seed: 1\n")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "disk"
    place.mkdir()
    return place


@pytest.fixture
def folder(run: Path, root: Path) -> MirrorFolder:
    place = root / "run"
    place.mkdir()
    return MirrorFolder(run, place, RetentionPolicy())


def test_the_mirror_holds_what_the_run_folder_holds_and_each_bit_of_it(folder: MirrorFolder) -> None:
    assert folder.bring_up_to_date() == []
    assert names(folder.folder) == names(folder.run)
    assert all((folder.folder / name).read_bytes() == (folder.run / name).read_bytes() for name in names(folder.run))
    found = survey_folder(folder.folder)
    assert found.last and found.best and found.last.epoch == 3
    assert (folder.folder / "last_checkpoint.pth").stat().st_nlink == 2, "second names are links there, too"


def test_what_is_there_already_is_not_copied_again(folder: MirrorFolder) -> None:
    folder.bring_up_to_date()
    before = {name: (folder.folder / name).stat().st_mtime_ns for name in names(folder.folder)}
    saved(folder.run, 4)
    folder.bring_up_to_date()
    after = {name: (folder.folder / name).stat().st_mtime_ns for name in before if name != "last_checkpoint.pth"}
    assert after == {name: before[name] for name in after}


def test_the_newest_checkpoint_is_the_first_one_to_be_there(folder: MirrorFolder) -> None:
    copied: list[str] = []
    folder.check = lambda: copied.append(folder.copying.name)
    folder.bring_up_to_date()
    assert list(dict.fromkeys(copied))[:2] == ["checkpoint_epoch_3.pth", "best_checkpoint_eer.pth"]


def test_the_mirror_is_pruned_by_the_rule_of_the_run_folder(folder: MirrorFolder) -> None:
    folder.bring_up_to_date()
    folder.policy = RetentionPolicy(keep_last_n=1)
    saved(folder.run, 4)
    folder.bring_up_to_date()
    assert {name for name in names(folder.folder) if name.startswith("checkpoint")} == {
        "checkpoint_epoch_1.pth",  # the best one
        "checkpoint_epoch_4.pth",
    }


def test_nothing_is_pruned_before_the_newest_checkpoint_is_there(
    folder: MirrorFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.bring_up_to_date()
    folder.policy = RetentionPolicy(keep_last_n=1)
    saved(folder.run, 4)
    monkeypatch.setattr(mirror_copy, "free_bytes", lambda _: 10)
    with pytest.raises(OSError, match=r"it needs .* and 10 bytes are free"):
        folder.bring_up_to_date()
    assert "checkpoint_epoch_2.pth" in names(folder.folder)
    monkeypatch.undo()
    spoil(folder.run / "checkpoint_epoch_4.pth")
    (complaint,) = {text.partition(": ")[2] for text in folder.bring_up_to_date()}
    assert complaint.startswith("its checksum does not match")
    assert "checkpoint_epoch_2.pth" in names(folder.folder)


def test_what_the_run_folder_lost_stays_in_the_mirror(folder: MirrorFolder) -> None:
    folder.bring_up_to_date()
    shutil.rmtree(folder.run)
    saved(folder.run, 4)
    folder.bring_up_to_date()
    assert {f"checkpoint_epoch_{n}.pth" for n in (1, 2, 3, 4)} <= names(folder.folder)


@pytest.mark.parametrize("of_one", [False, True])
def test_another_run_in_the_mirror_is_moved_aside(folder: MirrorFolder, of_one: bool) -> None:
    folder.bring_up_to_date()
    shutil.rmtree(folder.run)
    saved(folder.run, 1, run="run-b")
    if of_one:  # a checkpoint of another future stands beside those of the run
        shutil.rmtree(folder.folder)
        folder.folder.mkdir()
        folder.bring_up_to_date()
        saved(folder.folder, 7, run="run-a")
    folder.bring_up_to_date()
    moved = names(folder.folder / "version_1")
    assert "checkpoint_epoch_7.pth" in moved if of_one else "checkpoint_epoch_3.pth" in moved
    assert (folder.folder / "checkpoint_epoch_1.pth").read_bytes() == (
        folder.run / "checkpoint_epoch_1.pth"
    ).read_bytes()


def test_the_future_that_a_branch_leaves_is_whole_in_the_version_of_the_mirror(folder: MirrorFolder) -> None:
    """A branch begins where the mirror is further, with the id of the run until its first save."""
    folder.policy = RetentionPolicy(keep_last_n=1)
    for epoch in (1, 2, 3, 4):
        saved(folder.run, epoch)
    link_or_copy(folder.run / "checkpoint_epoch_3.pth", folder.run / "best_checkpoint_eer.pth")
    later_best = record("", 4, best_epoch=3, name="checkpoint_epoch_4.pth")
    write_checkpoint(folder.run / "checkpoint_epoch_4.pth", later_best)
    link_or_copy(folder.run / "checkpoint_epoch_4.pth", folder.run / "last_checkpoint.pth")
    folder.bring_up_to_date()
    future = {"checkpoint_epoch_3.pth", "checkpoint_epoch_4.pth", "last_checkpoint.pth", "best_checkpoint_eer.pth"}
    contents = {name: (folder.folder / name).read_bytes() for name in future}
    shutil.rmtree(folder.run)
    saved(folder.run, 1)
    folder.bring_up_to_date()
    assert {name: (folder.folder / name).read_bytes() for name in future} == contents
    branched = record("", 2, lineage=(("run-a", 0), ("run-b", 10)), best_epoch=1, name="checkpoint_epoch_2.pth")
    write_checkpoint(folder.run / "checkpoint_epoch_2.pth", branched)
    link_or_copy(folder.run / "checkpoint_epoch_2.pth", folder.run / "last_checkpoint.pth")
    folder.bring_up_to_date()
    assert {name: (folder.folder / "version_1" / name).read_bytes() for name in future} == contents
    assert {"checkpoint_epoch_2.pth", "best_checkpoint_eer.pth"} <= names(folder.folder)


def test_the_version_that_the_run_folder_gave_to_an_earlier_run_is_that_of_the_mirror(folder: MirrorFolder) -> None:
    folder.bring_up_to_date()
    shutil.rmtree(folder.run)
    saved(folder.run, 1, run="run-b")
    (folder.run / "version_4").mkdir()
    folder.bring_up_to_date()
    assert "checkpoint_epoch_3.pth" in names(folder.folder / "version_4")


def test_a_copy_is_read_back_and_one_that_differs_gets_no_name(
    folder: MirrorFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_copy, "broken_seal_of", lambda _: "other bits")
    with pytest.raises(BadCopyError):
        folder.bring_up_to_date()
    assert names(folder.folder) == set()


def test_a_damaged_file_of_the_run_is_not_copied_and_is_named_and_the_others_are(folder: MirrorFolder) -> None:
    bad = folder.run / "checkpoint_epoch_2.pth"
    content = bytearray(bad.read_bytes())
    content[200] ^= 1
    bad.write_bytes(content)
    (complaint,) = folder.bring_up_to_date()
    assert complaint.startswith(f"{bad} is not mirrored: its checksum does not match")
    assert names(folder.run) - names(folder.folder) == {"checkpoint_epoch_2.pth"}


def test_what_a_killed_process_left_half_copied_is_removed(folder: MirrorFolder) -> None:
    stray = folder.folder / ".tmp-checkpoint_epoch_3.pth-123-0123abcd"
    stray.write_bytes(b"half")
    folder.bring_up_to_date()
    assert not stray.exists()


def test_a_file_that_goes_while_it_is_looked_at_is_done_without(folder: MirrorFolder) -> None:
    gone = folder.run / "checkpoint_epoch_1.pth"
    folder.check = lambda: gone.unlink(missing_ok=True)
    assert folder.bring_up_to_date() == []
    assert "checkpoint_epoch_3.pth" in names(folder.folder)


def mirrored(run: Path, root: Path) -> Mirror:
    return Mirror(run, root, RetentionPolicy())


def test_the_thread_copies_what_is_new_and_the_end_waits_for_it(run: Path, root: Path) -> None:
    with mirrored(run, root) as mirror:
        assert mirror.finish(LONG_S)
        assert names(root / "run") == names(run)
        saved(run, 4)
        assert mirror.finish(LONG_S)
        assert names(root / "run") == names(run)
        assert mirror.news() == []
        assert mirror.state == f"{root / 'run'}: up to date"


def test_a_mirror_that_is_absent_is_told_once_and_once_more_when_it_is_back(run: Path, root: Path) -> None:
    root.rmdir()
    with mirrored(run, root) as mirror:
        assert not mirror.finish(LONG_S)
        (told,) = mirror.news()
        assert told.startswith(f"[WARNING] The mirror {root / 'run'}: {root}: it does not exist (make it, or mount")
        assert "Training goes on" in told
        assert not mirror.finish(LONG_S)
        assert mirror.news() == []
        assert not root.exists(), "a disk that is not mounted is not made"
        root.mkdir()
        assert mirror.finish(LONG_S)
        assert mirror.news() == [f"The mirror {root / 'run'} is up to date again."]
    assert names(root / "run") == names(run)


def test_a_mirror_that_is_removed_meanwhile_is_made_again(run: Path, root: Path) -> None:
    with mirrored(run, root) as mirror:
        assert mirror.finish(LONG_S)
        shutil.rmtree(root / "run")
        assert mirror.finish(LONG_S)
        assert names(root / "run") == names(run)


def test_a_mirror_that_is_full_in_the_middle_of_a_copy_is_told_and_holds_what_it_held(
    run: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mirrored(run, root) as mirror:
        assert mirror.finish(LONG_S)
        saved(run, 4)
        before = names(root / "run")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device", str(root / "run"))

        monkeypatch.setattr(mirror._folder, "check", full)
        assert not mirror.finish(LONG_S)
        assert "No space left on device. Training goes on" in mirror.news()[0]
        assert names(root / "run") == before
        assert survey_folder(root / "run").latest.epoch == 3  # type: ignore[union-attr]


def test_a_slow_mirror_is_told_once_and_gives_up_its_copy_when_the_process_ends(
    run: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.saving.mirror.SLOW_S", 0.0)
    copies, goes_on = threading.Event(), threading.Event()
    with mirrored(run, root) as mirror:
        insist_open = mirror._folder.check

        def slow() -> None:
            copies.set()
            goes_on.wait(LONG_S)
            insist_open()

        monkeypatch.setattr(mirror._folder, "check", slow)
        mirror.poke()
        assert copies.wait(LONG_S)
        assert mirror.state.startswith(f"{root / 'run'}: copying checkpoint_epoch_3.pth (0 %")
        (told,) = mirror.news()
        assert told.startswith(f"[NOTE] The mirror {root / 'run'} is slow: after") and "does not wait for it" in told
        assert mirror.news() == []
        mirror._is_closed = True
        goes_on.set()
    assert names(root / "run") == set(), "what was half copied is gone"
    assert not mirror._thread.is_alive()


def test_the_end_of_a_run_says_that_it_waits_for_the_mirror(
    run: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    goes_on = threading.Event()

    def hear(text: str) -> None:
        told.append(text)
        goes_on.set()

    monkeypatch.setattr("training.saving.mirror.say", hear)
    monkeypatch.setattr("training.saving.mirror._TOLD_AFTER_S", 0.0)
    mirror = Mirror(run, root, RetentionPolicy())
    monkeypatch.setattr(mirror._folder, "check", lambda: goes_on.wait(LONG_S) and None)
    with mirror:
        assert mirror.finish(LONG_S), "it goes on once that was said"
    (line,) = told
    assert line.startswith(f"[NOTE] Waiting for the mirror {root / 'run'}") and "Ctrl-C leaves the rest" in line


def test_a_second_process_at_the_same_mirror_is_told_of_the_first(run: Path, root: Path) -> None:
    (root / "run").mkdir()
    holder = os.fork()
    if holder == 0:  # pragma: no cover
        with RunLock(root / "run" / ".lock"):
            (root / "held").touch()
            signal.pause()
        os._exit(0)
    try:
        while not (root / "held").exists():
            os.sched_yield()
        with mirrored(run, root) as mirror:
            assert not mirror.finish(LONG_S)
            assert f"another process trains or mirrors in {root / 'run'} (host" in mirror.news()[0]
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)


# (run folder, --mirror, whether it is refused: why)
PLACES = [
    ("models/run", "models/run", True, "it is the run folder"),
    ("models/run", "models/run/copies", True, "it lies in the run folder"),
    ("models/run", "models", True, "the mirror of models/run in models is the run folder itself"),
    ("models/run", "disk", False, "another folder"),
    ("models/run", "models/run2", False, "another run's"),
    ("outputs/e/checkpoints/version_1", "outputs", True, "the version itself"),
    ("outputs/e/checkpoints/version_1", "disk", False, "another folder"),
]


@pytest.mark.parametrize(("place", "typed", "refused", "why"), PLACES, ids=[row[-1] for row in PLACES])
def test_a_mirror_that_would_be_gone_with_the_run_is_refused(
    place: str, typed: str, refused: bool, why: str, tmp_path: Path
) -> None:
    try:
        refuse_bad_mirror(tmp_path / place, tmp_path / typed)
    except UserError as error:
        assert refused and "pass a folder elsewhere, best on another disk" in str(error), why
    else:
        assert not refused, why


@pytest.mark.parametrize("has_run", [False, True])
def test_a_mirror_that_is_the_run_folder_at_a_second_mount_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_run: bool
) -> None:
    """A link whose target is not looked up stands for a mount."""
    monkeypatch.setattr(os.path, "realpath", os.path.abspath)
    (tmp_path / "models" / "run" if has_run else tmp_path / "models").mkdir(parents=True)
    (tmp_path / "mount").symlink_to("models")
    with pytest.raises(UserError, match="pass a folder elsewhere"):
        refuse_bad_mirror(tmp_path / "models" / "run", tmp_path / "mount")


def test_a_mirror_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    with pytest.raises(UserError, match="is no folder"):
        refuse_bad_mirror(tmp_path / "models" / "run", tmp_path / "disk")


def test_the_plan_says_that_a_mirror_is_absent_or_on_the_same_disk(tmp_path: Path) -> None:
    run, root = tmp_path / "models" / "run", tmp_path / "disk"
    assert "it does not exist now (make it, or mount its disk)" in mirror_text(run, root)
    root.mkdir()
    assert mirror_text(run, root) == f"{root / 'run'}, on the same disk as the run: both may be lost with it"
    assert mirror_of(Path("outputs/e/checkpoints/version_2"), root) == root / "e" / "checkpoints" / "version_2"


def restored(run: Path, root: Path) -> set[str]:
    """Return the names of what is copied back for --auto_resume of the run in `run`."""
    options = Options(mirror=str(root))
    here = survey_folder(run)
    facts = Facts(options, here, candidates=find_latest_usable(here))
    return {path.name for path in restore_from_mirror(AutoResume(options=options), facts)}


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)


def test_what_is_copied_back_is_the_newest_and_the_best_checkpoint_and_no_other(folder: MirrorFolder) -> None:
    saved(folder.run, 4)
    folder.bring_up_to_date()
    shutil.rmtree(folder.run)
    assert restored(folder.run, folder.folder.parent) == {"checkpoint_epoch_4.pth", "checkpoint_epoch_1.pth"}
    assert names(folder.run) == {"checkpoint_epoch_4.pth", "checkpoint_epoch_1.pth", "config.yaml"}


def test_a_run_is_copied_back_from_a_disk_that_may_only_be_read(
    folder: MirrorFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.bring_up_to_date()
    shutil.rmtree(folder.run)

    def refused(path: Path) -> object:
        if path.is_relative_to(folder.folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return open_to_append(path)

    monkeypatch.setattr("training.runs.lock.open_to_append", refused)
    assert restored(folder.run, folder.folder.parent) == {"checkpoint_epoch_3.pth", "checkpoint_epoch_1.pth"}


def test_a_run_of_another_length_is_copied_back_from_the_mirror(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in models/ is gone on from: who types a larger --num_epochs means the run that there is."""
    monkeypatch.chdir(tmp_path)
    for length, epoch in ((2, 2), (3, 3)):
        options = Options(num_epochs=length)
        made = record("", epoch, options=options, name=f"checkpoint_epoch_{epoch}.pth")
        write_checkpoint(root / run_name(options) / made.name, made)
    write_checkpoint(root / "another" / "checkpoint_epoch_9.pth", record("", 9, name="checkpoint_epoch_9.pth"))
    asked = Options(num_epochs=5, mirror=str(root))
    facts = Facts(asked, survey_folder(RunDirectory.of(asked).folder))
    found = restore_from_mirror(AutoResume(options=asked), facts)
    assert found == [RunDirectory.of(Options(num_epochs=3)).folder / "checkpoint_epoch_3.pth"]


def test_a_mirror_that_is_not_newer_is_not_used(folder: MirrorFolder) -> None:
    folder.bring_up_to_date()
    assert restored(folder.run, folder.folder.parent) == set()


def test_a_damaged_best_checkpoint_is_replaced_where_the_mirror_is_newer(folder: MirrorFolder) -> None:
    saved(folder.run, 4)
    folder.bring_up_to_date()
    for name in ("checkpoint_epoch_1.pth", "checkpoint_epoch_4.pth"):
        spoil(folder.run / name)
    assert restored(folder.run, folder.folder.parent) == {"checkpoint_epoch_4.pth", "checkpoint_epoch_1.pth"}
    assert not broken_seal(folder.run / "checkpoint_epoch_1.pth")


def test_a_damaged_newest_one_in_the_mirror_is_passed_over_for_one_that_is_newer_still(folder: MirrorFolder) -> None:
    saved(folder.run, 4)
    saved(folder.run, 5)
    folder.bring_up_to_date()
    spoil(folder.folder / "checkpoint_epoch_5.pth")
    for number in (4, 5):
        (folder.run / f"checkpoint_epoch_{number}.pth").unlink()
    (folder.run / "last_checkpoint.pth").unlink()
    assert restored(folder.run, folder.folder.parent) == {"checkpoint_epoch_4.pth"}


def test_a_mirror_that_holds_another_run_is_not_used(folder: MirrorFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.bring_up_to_date()
    shutil.rmtree(folder.run)
    saved(folder.run, 1, run="run-b")
    assert restored(folder.run, folder.folder.parent) == set()
    assert f"{folder.folder} holds another run than {folder.run}: nothing there is used" in capsys.readouterr().out


def test_a_run_that_another_process_mirrors_is_not_taken_from_there(folder: MirrorFolder) -> None:
    folder.bring_up_to_date()
    shutil.rmtree(folder.run)
    holder = os.fork()
    if holder == 0:  # pragma: no cover
        with RunLock(folder.folder / ".lock"):
            (folder.folder.parent / "held").touch()
            signal.pause()
        os._exit(0)
    try:
        while not (folder.folder.parent / "held").exists():
            os.sched_yield()
        with pytest.raises(UserError, match="another process trains or mirrors in"):
            restored(folder.run, folder.folder.parent)
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    assert not checkpoint_files(folder.run)


@pytest.fixture
def train(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Return what trains in tmp_path as a user would, two epochs of three steps, and gives exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.saving.mirror.STOP_WAITS_S", LONG_S)  # a busy machine takes more than 3 s
    (tmp_path / "disk").mkdir()

    def typed(*flags: str, stop_at: int = 0) -> tuple[int, str]:
        steps = 0

        def watched(*arguments: object) -> object:
            nonlocal steps
            result = take_step(*arguments)  # type: ignore[arg-type]
            steps += 1
            if steps == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return result

        monkeypatch.setattr("training.loop.trainer.take_step", watched)
        words = [*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", "2", "--mirror", "disk", *flags]
        code = main(words)
        found = capsys.readouterr()
        return code, found.out + found.err

    return typed


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, here = tmp_path_factory.mktemp("undisturbed"), Path.cwd()
    os.chdir(folder)
    try:
        assert main([*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", "2"]) == 0
    finally:
        os.chdir(here)
    (run,) = (folder / "models").iterdir()
    return run


def the_run(root: Path) -> Path:
    (found,) = root.iterdir()
    return found


def test_a_run_whose_first_folder_is_gone_goes_on_from_the_mirror_to_the_same_bits(
    train: Callable[..., tuple[int, str]], undisturbed: Path, tmp_path: Path
) -> None:
    code, said = train(stop_at=4)
    assert code == 143
    assert f"mirrored to: disk/{the_run(tmp_path / 'models').name}, on the same disk as the run" in said
    shutil.rmtree(tmp_path / "models")
    shutil.rmtree(tmp_path / "logs")
    code, said = train("--auto_resume")
    assert code == 0
    run = the_run(tmp_path / "models")
    assert f"Going on from the mirror: disk/{run.name}/checkpoint_step_4.pth is the newer checkpoint" in said
    assert f"resume models/{run.name}/checkpoint_step_4.pth" in said and "as a branch" not in said
    ours = survey_folder(run)
    assert ours.last and ours.best
    assert not differences(
        bits(run / "checkpoint_epoch_2.pth"), bits(undisturbed / "checkpoint_epoch_2.pth"), "checkpoint_epoch_2.pth"
    )
    assert survey_folder(undisturbed).best and ours.best.last == survey_folder(undisturbed).best.last  # type: ignore[union-attr]
    place = the_run(tmp_path / "disk")
    assert names(run) - {"report.html"} <= names(place)
    assert {"checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"} <= names(place)
    best = run / "best_checkpoint_eer.pth"
    content = bytearray(best.read_bytes())
    content[300] ^= 1
    best.write_bytes(content)  # and with it the epoch's own file
    code, said = train("--auto_resume")
    assert code == 0 and "Target epochs already reached" in said


def test_a_damaged_newest_checkpoint_is_taken_from_the_mirror_and_an_older_mirror_is_not_used(
    train: Callable[..., tuple[int, str]], undisturbed: Path, tmp_path: Path
) -> None:
    assert train(stop_at=4)[0] == 143
    run = the_run(tmp_path / "models")
    step = run / "checkpoint_step_4.pth"
    content = bytearray(step.read_bytes())
    content[300] ^= 1
    step.write_bytes(content)  # last_checkpoint is the same file
    code, said = train("--auto_resume", stop_at=1)
    assert code == 143 and "since models/" in said and "has checkpoint_epoch_1.pth as its newest one" in said
    assert broken_seal(step) is None
    shutil.rmtree(tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    code, said = train("--auto_resume")
    assert code == 0 and "Going on from the mirror" not in said
    assert not differences(
        bits(run / "checkpoint_epoch_2.pth"), bits(undisturbed / "checkpoint_epoch_2.pth"), "checkpoint_epoch_2.pth"
    )
