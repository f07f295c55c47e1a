"""Whole runs that save within epochs: what is kept, under which names, and that it resumes to the same bits."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from main import main
from tests.comparing import assert_same_training, bits, differences, log_rows
from tests.conftest import SMALL_RUN
from training.checkpoints.examined import examine
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.sealed_file import broken_seal
from training.loop.step import take_step
from training.runs.survey import survey_folder
from training.tasks.detection import DetectionTask

STEPS_PER_EPOCH = 3


def train(folder: Path, corpus: Path, *arguments: str, epochs: int = 2) -> int:
    """Run the program inside `folder` as a user would, and return its exit code."""
    here = Path.cwd()
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    try:
        return main([*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", str(epochs), *arguments])
    finally:
        os.chdir(here)


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "models").iterdir()
    return found


def names(folder: Path) -> list[str]:
    """Return the checkpoints of the only run below `folder`, each whole, in the order of the list."""
    run = survey_folder(run_folder(folder))
    assert [broken_seal(record.path) for record in run.all_checkpoints] == [None] * len(run.all_checkpoints)
    return [record.path.name for record in run.checkpoints]


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert train(folder, corpus) == 0
    return run_folder(folder)


@pytest.fixture
def after_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[int, Callable[[], object]]], None]]:
    """Do something right after given training steps, counted from the start of the test."""
    events: dict[int, Callable[[], object]] = {}
    original, seen = take_step, [0]

    def watched(*arguments: object) -> object:
        result = original(*arguments)  # type: ignore[arg-type]
        seen[0] += 1
        events.get(seen[0], lambda: None)()
        return result

    monkeypatch.setattr("training.loop.trainer.take_step", watched)
    yield events.update


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# (flags, the checkpoints under their own names after two epochs of three steps)
KEPT = [
    ("--save_interval 2", [f"checkpoint_step_{n}.pth" for n in (2, 4, 6)]),
    ("--save_interval 1", [f"checkpoint_step_{n}.pth" for n in (2, 3, 4, 5, 6)]),
    ("--save_interval 1 --keep_last_n 1", ["checkpoint_step_6.pth"]),
    ("--save_interval 0 --keep_last_n 1", []),
    ("--save_interval 0 --keep_last_n 1 --milestones 1", ["checkpoint_epoch_1.pth"]),
    ("--save_interval 1 --save_best_only", []),
]


@pytest.mark.parametrize(("flags", "expected"), KEPT, ids=[row[0] for row in KEPT])
def test_the_flags_decide_which_checkpoints_stay(
    flags: str, expected: list[str], corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    assert train(tmp_path, corpus, *flags.split()) == 0
    run = survey_folder(run_folder(tmp_path))
    assert run.best and run.last
    found = names(tmp_path)
    assert run.last.position == (2 * STEPS_PER_EPOCH, 2)
    assert set(expected) <= set(found)
    if "--save_best_only" in flags:
        assert found == []
    else:
        assert "checkpoint_epoch_2.pth" in found
        allowed = {*expected, "checkpoint_epoch_2.pth", f"checkpoint_epoch_{run.best.epoch}.pth"}
        assert set(found) <= allowed | ({"checkpoint_epoch_1.pth"} if "keep_last_n" not in flags else set())
    assert differences(bits(run.last.path), bits(undisturbed / "checkpoint_epoch_2.pth")) == []
    assert differences(bits(run.best.path), bits(undisturbed / f"checkpoint_epoch_{run.best.epoch}.pth")) == []


@pytest.mark.parametrize("flags", ["--sync_save", "--save_interval 1", "--val_interval 2", "--compress_after 1"])
def test_how_often_and_how_it_is_saved_changes_no_bit(
    flags: str, corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    assert train(tmp_path, corpus, *flags.split()) == 0
    for name in ("checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"):
        mine, theirs = bits(run_folder(tmp_path) / name), bits(undisturbed / name)
        rows = mine.pop("validations"), theirs.pop("validations")
        assert bool(rows[0]) == ("--val_interval" in flags) and not rows[1]
        assert differences(mine, theirs) == []


def test_killed_in_mid_epoch_a_run_goes_on_from_its_last_step_checkpoint(
    corpus: Path, undisturbed: Path, tmp_path: Path, after_step: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """KeyboardInterrupt within a step, as a second Ctrl-C raises it: nothing is saved on the way out."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    after_step({5: interrupt})
    assert train(tmp_path, corpus, "--save_interval", "1", "--sync_save") == 130
    assert names(tmp_path)[-1] == "checkpoint_step_4.pth"
    assert train(tmp_path, corpus, "--auto_resume", "--save_interval", "1") == 0
    assert_same_training(run_folder(tmp_path), undisturbed)
    assert log_rows(run_folder(tmp_path)) == log_rows(undisturbed)


# (training steps after which a run with --val_interval 2 --save_interval 2 is stopped)
STOPS = [(2,), (3,), (4,), (1, 2, 3, 4, 5, 6)]


@pytest.mark.parametrize("steps", STOPS, ids=str)
def test_validation_within_epochs_is_exact_across_stops(
    steps: tuple[int, ...], corpus: Path, tmp_path: Path, after_step: Callable[..., None]
) -> None:
    flags = ["--val_interval", "2", "--save_interval", "2", "--checkpoint_name", "s{step:03d}-eer_{val_eer:.2f}.ckpt"]
    assert train(tmp_path / "one", corpus, *flags) == 0
    after_step({2 * STEPS_PER_EPOCH + step: stop for step in steps})
    codes = [train(tmp_path / "other", corpus, *flags)]
    while codes[-1] == 143:
        codes.append(train(tmp_path / "other", corpus, *flags, "--auto_resume"))
        assert len(codes) <= 1 + len(steps)
    assert codes == [143] * len(steps) + [0]
    one, other = run_folder(tmp_path / "one"), run_folder(tmp_path / "other")
    regular = sorted(path.name for path in one.glob("s*.ckpt"))
    assert len(regular) == 3 and regular[0].startswith("s002-eer_")
    assert sorted(path.name for path in other.glob("s*.ckpt")) == regular
    assert_same_training(one, other)
    for name in regular:
        assert differences(bits(one / name), bits(other / name), name) == []


def test_a_step_checkpoint_tells_the_validation_of_its_own_weights(corpus: Path, tmp_path: Path) -> None:
    assert train(tmp_path, corpus, "--val_interval", "2", "--save_interval", "2", epochs=1) == 0
    found = examine(run_folder(tmp_path) / "checkpoint_step_2.pth")
    assert isinstance(found, CheckpointRecord)
    assert found.last is None and found.validated is not None
    assert (found.validated.step, found.validated.epoch) == (2, 0)


def test_sigusr1_saves_after_the_step_and_training_goes_on(
    corpus: Path, undisturbed: Path, tmp_path: Path, after_step: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    after_step({2: lambda: os.kill(os.getpid(), signal.SIGUSR1)})
    assert train(tmp_path, corpus) == 0
    said = capfd.readouterr()
    assert "SIGUSR1" in said.err
    assert "checkpoint_step_2.pth, and going on" in said.out
    assert names(tmp_path) == ["checkpoint_step_2.pth", "checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"]
    assert_same_training(run_folder(tmp_path), undisturbed)


def test_sigusr1_during_the_validation_of_an_epoch_is_answered_by_its_checkpoint(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    original = DetectionTask.validation_step

    def interrupted(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGUSR1)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(DetectionTask, "validation_step", interrupted)
    assert train(tmp_path, corpus, epochs=1) == 0
    assert "checkpoint_epoch_1.pth, and going on" in capfd.readouterr().out


def test_sigusr1_is_not_answered_by_an_older_file_where_the_disk_refuses_the_new_one(
    corpus: Path, tmp_path: Path, after_step: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def ask_of_a_full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        os.kill(os.getpid(), signal.SIGUSR1)

    after_step({2: ask_of_a_full_disk, 3: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))})
    assert train(tmp_path, corpus, "--save_interval", "1", epochs=1) == 0
    said = capfd.readouterr().out
    assert "[WARNING]" in said and "checkpoint_step_2.pth" in said
    assert "and going on" not in said


def test_the_file_a_run_goes_on_from_is_kept_whatever_the_flags_say(corpus: Path, tmp_path: Path) -> None:
    assert train(tmp_path, corpus, epochs=1) == 0
    source = run_folder(tmp_path) / "checkpoint_epoch_1.pth"
    flags = ["--resume", "--model_path", str(source), "--keep_last_n", "1", "--lr", "1e-3"]
    assert train(tmp_path, corpus, *flags, epochs=4) == 0
    assert source.exists()


def test_what_another_run_left_in_the_folder_and_what_a_user_renamed_is_never_deleted(
    corpus: Path, tmp_path: Path
) -> None:
    assert train(tmp_path, corpus, epochs=1) == 0
    folder = run_folder(tmp_path)
    (folder / "before_the_change.pth").write_bytes((folder / "checkpoint_epoch_1.pth").read_bytes())
    assert train(tmp_path, corpus, "--auto_resume", "--keep_last_n", "1", "--save_interval", "1", epochs=3) == 0
    (longer,) = (path for path in (tmp_path / "models").iterdir() if path != folder)
    assert (folder / "before_the_change.pth").exists()
    assert (folder / "checkpoint_epoch_1.pth").exists()
    assert (longer / "checkpoint_epoch_3.pth").exists()
