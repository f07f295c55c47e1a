"""What a survey finds in a run folder, damaged and foreign files included; it reads records and changes nothing."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.records import cut, flip_a_bit, metrics, record, write_checkpoint, write_foreign_weights
from training.checkpoints.examined import WeightsFile
from training.checkpoints.record import CheckpointRecord, Kind
from training.runs.directory import LOCK_NAME, LOGS_ROOT, MOVE_JOURNAL_NAME
from training.runs.survey import RunFolder, find_latest_usable, newest_record, other_run_folders, survey_folder
from training.settings.options import Options
from utils.atomic_files import TEMPORARY_PREFIX

RUN = Path("models/run")
pytestmark = pytest.mark.usefixtures("workplace")


def write_epoch(number: int, name: str = "") -> CheckpointRecord:
    return write_checkpoint(RUN / (name or f"checkpoint_epoch_{number}.pth"), record("", number))


def write_weights(name: str, epoch: int) -> None:
    write_checkpoint(RUN / name, record("", epoch, kind=Kind.WEIGHTS))


def names(run: RunFolder) -> list[str]:
    return [found.path.name for found in run.all_checkpoints]


def test_a_folder_that_does_not_exist_is_an_empty_one() -> None:
    assert survey_folder(RUN) == RunFolder(RUN)
    assert not RUN.exists()


def test_a_record_is_read_as_it_was_written() -> None:
    written = write_epoch(3)
    assert survey_folder(RUN).checkpoints == (written,)


def test_checkpoints_are_ordered_by_position_and_the_best_is_last() -> None:
    for number in (10, 9, 100):
        write_epoch(number)
    write_epoch(9, "best_checkpoint_eer.pth")
    write_checkpoint(RUN / "checkpoint_step_95.pth", record("", 9, batches_done=5))
    assert names(survey_folder(RUN)) == [
        "checkpoint_epoch_9.pth",
        "checkpoint_step_95.pth",
        "checkpoint_epoch_10.pth",
        "checkpoint_epoch_100.pth",
        "best_checkpoint_eer.pth",
    ]


def test_the_record_decides_what_is_latest_and_not_the_name() -> None:
    write_epoch(7, "checkpoint_epoch_1.pth")
    write_epoch(2, "checkpoint_epoch_9.pth")
    latest = survey_folder(RUN).latest
    assert latest and latest.path.name == "checkpoint_epoch_1.pth"


def test_the_latest_is_the_epoch_file_where_the_best_has_the_same_position() -> None:
    write_epoch(2)
    write_epoch(2, "best_checkpoint_eer.pth")
    latest = survey_folder(RUN).latest
    assert latest and latest.path.name == "checkpoint_epoch_2.pth"


def test_a_best_file_of_another_comment_is_not_overlooked() -> None:
    """Only one can be `best`: the later one; the others are checkpoints like any."""
    write_epoch(2, "best_checkpoint_eer_old.pth")
    write_epoch(5, "best_checkpoint_eer.pth")
    run = survey_folder(RUN)
    assert run.best and run.best.epoch == 5
    assert names(run) == ["best_checkpoint_eer_old.pth", "best_checkpoint_eer.pth"]


def listed(run: RunFolder) -> list[str]:
    return [found.path.name for found in run.listed]


def test_the_last_name_is_a_second_name_and_not_listed_twice() -> None:
    for number in (1, 2):
        write_epoch(number)
    write_epoch(2, "last_checkpoint.pth")
    write_epoch(1, "best_checkpoint_eer.pth")
    run = survey_folder(RUN)
    assert run.last and run.last.epoch == 2
    assert listed(run) == ["checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth", "best_checkpoint_eer.pth"]
    assert run.latest and run.latest.path.name == "checkpoint_epoch_2.pth"


def test_the_last_name_is_listed_where_the_checkpoint_has_no_other() -> None:
    """As --save_best_only leaves it, and a kill before the last name moved on."""
    write_epoch(2, "last_checkpoint.pth")
    write_epoch(1, "best_checkpoint_eer.pth")
    assert listed(survey_folder(RUN)) == ["last_checkpoint.pth", "best_checkpoint_eer.pth"]
    write_epoch(3)
    run = survey_folder(RUN)
    assert listed(run) == ["last_checkpoint.pth", "checkpoint_epoch_3.pth", "best_checkpoint_eer.pth"]
    assert run.latest and run.latest.epoch == 3


@pytest.mark.parametrize("name", ["checkpoint_5k.pt", "step_00010000-val_loss_0.1234.ckpt", "checkpoint_epoch_1.pth"])
def test_a_checkpoint_is_found_under_any_name_with_a_checkpoint_suffix(name: str) -> None:
    write_epoch(1, name)
    assert names(survey_folder(RUN)) == [name]
    found = newest_record(RUN)
    assert found and found.path.name == name


def test_weights_alone_are_no_checkpoints() -> None:
    write_weights("best_model_eer.pth", 4)
    write_foreign_weights(RUN / "pretrained.pth")
    run = survey_folder(RUN)
    assert run.all_checkpoints == ()
    record = run.weights[0].record
    assert record and (record.epoch, record.last, record.options) == (4, metrics(4), Options())
    assert run.weights == (
        WeightsFile(
            RUN / "best_model_eer.pth",
            (RUN / "best_model_eer.pth").stat().st_size,
            run.weights[0].record,
        ),
        WeightsFile(RUN / "pretrained.pth", (RUN / "pretrained.pth").stat().st_size),
    )


def test_the_pickle_format_of_old_torch_is_weights_alone() -> None:
    RUN.mkdir(parents=True)
    torch.save({"weight": torch.ones(1)}, RUN / "old.pth", _use_new_zipfile_serialization=False)
    assert [file.path.name for file in survey_folder(RUN).weights] == ["old.pth"]


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def make_text(path: Path) -> None:
    path.write_text("<html>404 not found</html>")


def make_other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("deleted.pth")


def make_cut(path: Path) -> None:
    write_checkpoint(path, record("", 5))
    cut(path)


def make_later_format(path: Path) -> None:
    later = record("", 5)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/record.json", json.dumps(later.as_dict() | {"format": 99}))


def make_incomplete_record(path: Path) -> None:
    stored = record("", 5).as_dict()
    del stored["epoch"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/record.json", json.dumps(stored))


UNUSABLE: list[tuple[Callable[[Path], None], str]] = [
    (make_empty, "it is empty"),
    (make_text, "it is not a checkpoint file"),
    (make_other_zip, "not one that torch wrote"),
    (make_dangling_link, "cannot be read (No such file or directory)"),
    (make_cut, "cut short"),
    (make_later_format, "format 99"),
    (make_incomplete_record, "its record lacks epoch"),
]


@pytest.mark.parametrize(("make", "reason"), UNUSABLE)
def test_a_file_that_is_no_checkpoint_is_named_with_the_reason(make: Callable[[Path], None], reason: str) -> None:
    RUN.mkdir(parents=True)
    make(RUN / "checkpoint_epoch_5.pth")
    run = survey_folder(RUN)
    assert [file.path.name for file in run.unusable] == ["checkpoint_epoch_5.pth"]
    assert reason in run.unusable[0].reason
    assert (run.all_checkpoints, run.weights) == ((), ())


def test_a_link_to_a_checkpoint_is_a_checkpoint() -> None:
    write_checkpoint(Path("store/real.pth"), record("", 3))
    RUN.mkdir(parents=True)
    (RUN / "checkpoint_epoch_3.pth").symlink_to(Path("store/real.pth").absolute())
    assert names(survey_folder(RUN)) == ["checkpoint_epoch_3.pth"]


def test_only_names_that_end_in_pth_are_read() -> None:
    write_epoch(1)
    (RUN / "notes.txt").write_text("mine")
    run = survey_folder(RUN)
    assert (names(run), run.unusable) == (["checkpoint_epoch_1.pth"], ())


def test_everything_of_the_run_is_an_entry_and_bookkeeping_is_not() -> None:
    write_epoch(1)
    for name in ("training_log.csv", LOCK_NAME, f"{TEMPORARY_PREFIX}x.pth"):
        (RUN / name).touch()
    for name in ("attention_epoch_1", "version_1"):
        (RUN / name).mkdir()
    assert survey_folder(RUN).entries == ("attention_epoch_1", "checkpoint_epoch_1.pth", "training_log.csv")


def test_versions_are_counted_here_and_among_the_logs() -> None:
    (RUN / "version_2").mkdir(parents=True)
    (LOGS_ROOT / RUN.name / "version_5").mkdir(parents=True)
    run = survey_folder(RUN)
    assert (run.versions, run.next_version) == ((2, 5), 6)


def test_versions_among_the_logs_count_where_the_run_folder_was_deleted() -> None:
    (LOGS_ROOT / RUN.name / "version_3").mkdir(parents=True)
    assert survey_folder(RUN).next_version == 4


def test_what_an_interrupted_move_still_has_to_take_counts_as_moved() -> None:
    write_epoch(1)
    write_epoch(2)
    (RUN / MOVE_JOURNAL_NAME).write_text(
        json.dumps({"version": 1, "entries": ["checkpoint_epoch_1.pth"], "log_entries": []})
    )
    run = survey_folder(RUN)
    assert (names(run), run.entries) == (["checkpoint_epoch_2.pth"], ("checkpoint_epoch_2.pth",))


def test_the_version_that_an_interrupted_move_goes_to_is_taken() -> None:
    """The plan once announced version_1 again, and the next run's files then went to version_2."""
    write_epoch(1)
    (RUN / MOVE_JOURNAL_NAME).write_text(json.dumps({"version": 1, "entries": [], "log_entries": []}))
    assert survey_folder(RUN).next_version == 2


def test_the_latest_usable_checkpoint_is_the_latest_where_nothing_is_damaged() -> None:
    write_epoch(1)
    latest = write_epoch(2)
    candidates = find_latest_usable(survey_folder(RUN))
    assert (candidates.usable, candidates.passed_over) == (latest, ())


def test_the_latest_usable_checkpoint_lies_before_damaged_ones_and_each_is_named() -> None:
    good = write_epoch(1)
    for number in (2, 3, 4):
        write_epoch(number)
    flip_a_bit(RUN / "checkpoint_epoch_2.pth")
    cut(RUN / "checkpoint_epoch_3.pth")
    flip_a_bit(RUN / "checkpoint_epoch_4.pth")
    candidates = find_latest_usable(survey_folder(RUN))
    assert candidates.usable == good
    reasons = {file.path.name: file.reason for file in candidates.passed_over}
    assert sorted(reasons) == [f"checkpoint_epoch_{number}.pth" for number in (2, 3, 4)]
    assert "checksum does not match" in reasons["checkpoint_epoch_4.pth"]


def test_an_undamaged_copy_under_the_best_name_saves_a_damaged_latest() -> None:
    write_epoch(3)
    best = write_epoch(3, "best_checkpoint_eer.pth")
    flip_a_bit(RUN / "checkpoint_epoch_3.pth")
    assert find_latest_usable(survey_folder(RUN)).usable == best


def test_there_is_no_usable_checkpoint_where_all_are_damaged() -> None:
    write_epoch(1)
    flip_a_bit(RUN / "checkpoint_epoch_1.pth")
    candidates = find_latest_usable(survey_folder(RUN))
    assert candidates.usable is None
    assert len(candidates.passed_over) == 1


def test_other_runs_are_the_folders_that_hold_checkpoint_files() -> None:
    for name in ("b", "run", "a"):
        write_checkpoint(Path("models") / name / "checkpoint_epoch_1.pth", record("", 1))
    Path("models/empty").mkdir()
    Path("models/detector.py").touch()
    assert other_run_folders(RUN) == [Path("models/a"), Path("models/b")]


def test_there_are_no_other_runs_where_there_is_no_models_folder() -> None:
    assert other_run_folders(RUN) == []


def test_the_newest_record_is_the_one_written_last_that_can_be_read() -> None:
    write_epoch(1)
    write_epoch(2)
    cut(RUN / "checkpoint_epoch_2.pth")
    (RUN / "checkpoint_epoch_3.pth").symlink_to("deleted.pth")
    found = newest_record(RUN)
    assert found and found.epoch == 1
