"""What follows a checkpoint that is durable, in which order, and what is left out where the disk refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_state import FACTS, OPTIONS, complete_epoch, seed_everything, small_state, train
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.sealed_file import broken_seal
from training.runs.directory import RunDirectory
from training.runs.names import CheckpointNames
from training.runs.retention import RetentionPolicy
from training.runs.survey import survey_folder
from training.saving.commit import Committer, Outcome
from training.saving.save_control import SaveControl
from training.saving.store import CheckpointStore
from training.state.snapshot import take_snapshot
from training.state.train_state import TrainState

KEEP_1 = RetentionPolicy(keep_last_n=1)


@dataclass(frozen=True)
class _StoreThatDamages(CheckpointStore):
    """Stands for a disk that changes a bit of what it was given, and says nothing."""

    def save(self, payload: Mapping[str, Any], record: CheckpointRecord, check: Any = lambda: None) -> Path:
        path = super().save(payload, record, check)
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
        return path


@pytest.fixture
def folder(workplace: Path) -> Path:
    """The run folder, empty."""
    made = RunDirectory.of(OPTIONS).folder
    made.mkdir(parents=True)
    return made


def committer(policy: RetentionPolicy, kind: type[CheckpointStore] = CheckpointStore, **more: Any) -> Committer:
    return Committer(kind(RunDirectory.of(OPTIONS), CheckpointNames.of(OPTIONS)), policy, **more)


def commit(made: Committer, state: TrainState, kind: Kind = Kind.EPOCH) -> Outcome:
    return made.commit(*take_snapshot(state, FACTS, kind), SaveControl())


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def epochs(count: int, val_eers: tuple[float, ...] = (5.0, 3.0, 4.0, 2.0)) -> TrainState:
    state = small_state()
    seed_everything(1)
    for epoch in range(count):
        train(state, 10)
        complete_epoch(state, val_eers[epoch])
    return state


def test_the_last_and_the_best_name_are_second_names_of_the_checkpoints(folder: Path) -> None:
    made = committer(RetentionPolicy())
    for count in (1, 2, 3):
        outcome = commit(made, epochs(count))
        assert (outcome.path, outcome.refused, outcome.warnings) == (folder / f"checkpoint_epoch_{count}.pth", "", ())
    assert (folder / "last_checkpoint.pth").samefile(folder / "checkpoint_epoch_3.pth")
    assert (folder / "best_checkpoint_eer.pth").samefile(folder / "checkpoint_epoch_2.pth")


def test_the_name_of_a_file_stands_in_its_record(folder: Path) -> None:
    commit(committer(RetentionPolicy()), epochs(1))
    assert [record.name for record in survey_folder(folder).checkpoints] == ["checkpoint_epoch_1.pth"]


def test_what_the_policy_lets_go_is_deleted_after_the_next_checkpoint(folder: Path) -> None:
    made = committer(KEEP_1)
    for count in (1, 2, 3):
        commit(made, epochs(count))
    assert not (folder / "checkpoint_epoch_1.pth").exists()
    assert [record.epoch for record in survey_folder(folder).checkpoints] == [2, 3], "the best and the furthest stay"


def test_the_two_file_policy_leaves_best_and_last_alone(folder: Path) -> None:
    made = committer(RetentionPolicy(save_best_only=True))
    for count in (1, 2, 3):
        commit(made, epochs(count))
    assert names_in(folder) == ["best_checkpoint_eer.pth", "best_model_eer.pth", "last_checkpoint.pth"]
    run = survey_folder(folder)
    assert run.best and run.last and (run.best.epoch, run.last.epoch) == (2, 3)


def test_a_save_is_told_under_a_name_that_is_there(folder: Path) -> None:
    """Stopped with --save_best_only, the printed way on named a step checkpoint that had just been deleted."""
    made = committer(RetentionPolicy(save_best_only=True))
    state = epochs(1)
    train(state, 1)
    outcome = made.commit(*take_snapshot(state, FACTS, Kind.STEP), SaveControl())
    assert outcome.path == outcome.furthest == folder / "last_checkpoint.pth" and outcome.path.exists()


def test_nothing_is_deleted_where_the_newest_checkpoint_is_not_as_it_was_written(folder: Path) -> None:
    commit(committer(KEEP_1), epochs(1, (9.0,)))
    outcome = commit(committer(KEEP_1, _StoreThatDamages), epochs(2, (9.0, 8.0)))
    assert (folder / "checkpoint_epoch_1.pth").exists()
    assert "checkpoint_epoch_2.pth is not as it was written" in outcome.warnings[0]
    assert "nothing older is deleted" in outcome.warnings[0]


def test_nothing_is_deleted_where_the_best_name_could_not_be_given(folder: Path) -> None:
    """A folder in the place of the best file stands for whatever a disk may refuse."""
    made = committer(KEEP_1)
    commit(made, epochs(1))
    (folder / "best_checkpoint_eer.pth").unlink()
    (folder / "best_checkpoint_eer.pth").mkdir()
    outcome = commit(made, epochs(2))
    assert outcome.path and not outcome.refused
    assert "best_checkpoint_eer.pth could not be saved" in outcome.warnings[0]
    assert (folder / "checkpoint_epoch_1.pth").exists()
    (folder / "best_checkpoint_eer.pth").rmdir()
    assert commit(made, epochs(3)).warnings == ()
    assert (folder / "best_checkpoint_eer.pth").samefile(folder / "checkpoint_epoch_2.pth")
    assert not (folder / "checkpoint_epoch_1.pth").exists()


def test_a_refused_checkpoint_changes_nothing(folder: Path) -> None:
    made = committer(KEEP_1)
    commit(made, epochs(1))
    before = {name: (folder / name).read_bytes() for name in names_in(folder)}
    (folder / "checkpoint_epoch_2.pth").mkdir()
    outcome = commit(made, epochs(2))
    assert outcome.path is None and "checkpoint_epoch_2.pth could not be saved" in outcome.refused
    (folder / "checkpoint_epoch_2.pth").rmdir()
    assert {name: (folder / name).read_bytes() for name in names_in(folder)} == before


def test_old_checkpoints_are_deflated_and_load_as_before(folder: Path) -> None:
    made = committer(RetentionPolicy(), compress_after=2)
    for count in (1, 2, 3, 4):
        assert commit(made, epochs(count)).warnings == ()
    sizes = {name: (folder / name).stat().st_size for name in names_in(folder) if name.startswith("checkpoint")}
    assert sizes["checkpoint_epoch_1.pth"] < sizes["checkpoint_epoch_4.pth"]
    assert all(broken_seal(folder / name) is None for name in sizes)
    old = torch.load(folder / "checkpoint_epoch_1.pth", weights_only=True)["model_state_dict"]
    fresh = epochs(1).networks["model"].state_dict()
    assert all(torch.equal(old[name], fresh[name]) for name in fresh)


def test_compression_ends_where_training_waits_and_is_made_up_for_later(folder: Path) -> None:
    made = committer(RetentionPolicy(), compress_after=1)
    commit(made, epochs(1, (1.0, 2.0, 3.0)[:1]))
    control = SaveControl()
    control.hurry()
    state = epochs(2, (9.0, 8.0))
    before = (folder / "checkpoint_epoch_1.pth").stat().st_size
    outcome = made.commit(*take_snapshot(state, FACTS, Kind.EPOCH), control)
    assert outcome.path and outcome.warnings == ()
    assert (folder / "checkpoint_epoch_1.pth").stat().st_size == before
    assert not list(folder.glob(".tmp-*"))
    commit(made, epochs(3, (9.0, 8.0, 7.0)))
    assert (folder / "checkpoint_epoch_1.pth").stat().st_size < before


def refuse(folder: Path, epoch: int) -> Path:
    """Put a folder under an epoch's name: it stands for a disk that refuses, until it is removed."""
    path = folder / f"checkpoint_epoch_{epoch}.pth"
    path.mkdir()
    return path


def test_a_refused_best_epoch_is_saved_on_a_second_try_and_does_not_become_the_last(folder: Path) -> None:
    made, state = committer(RetentionPolicy(save_best_only=True)), epochs(1, (1.0,))
    in_the_way = refuse(folder, 1)
    payload, record = take_snapshot(state, FACTS, Kind.EPOCH)
    assert made.commit(payload, record, SaveControl()).refused
    weight = payload["model_state_dict"]["0.weight"].clone()
    train(state, 10)
    complete_epoch(state, 2.0)
    state.history.lost_epochs.append(1)
    assert commit(made, state).path
    in_the_way.rmdir()
    outcome = made.save_refused()
    names = folder / "best_checkpoint_eer.pth", folder / "last_checkpoint.pth"
    assert outcome and (outcome.path, outcome.furthest) == names, "it is told under a name that is there"
    assert made.save_refused() is None
    run = survey_folder(folder)
    assert run.best and run.last and (run.best.epoch, run.last.epoch) == (1, 2)
    assert names_in(folder) == ["best_checkpoint_eer.pth", "best_model_eer.pth", "last_checkpoint.pth"]
    saved = torch.load(folder / "best_checkpoint_eer.pth", weights_only=True)["model_state_dict"]["0.weight"]
    assert torch.equal(saved, weight), "training went on, and changed the state that was refused"


@pytest.mark.parametrize(
    ("policy", "refused", "epochs_there"),
    [
        (RetentionPolicy(milestones=(3,)), (3,), [1, 2, 3]),
        (RetentionPolicy(save_freq=3), (3,), [2, 3]),
        (RetentionPolicy(), (3,), [1, 2, 3]),
        (RetentionPolicy(keep_last_n=2), (3,), [2, 3]),
        (RetentionPolicy(save_best_only=True), (3,), []),
        (RetentionPolicy(), (1, 3), [2, 3]),  # the newer of two
        (RetentionPolicy(milestones=(1,)), (1, 3), [1, 2]),
        (RetentionPolicy(milestones=(3,)), (2, 3), [1, 2]),  # the best one comes first
        (RetentionPolicy(milestones=(2, 3)), (3,), [1, 2, 3]),
        (RetentionPolicy(milestones=(1,)), (1, 2), [2, 3]),
    ],
)
def test_one_refused_epoch_is_saved_on_a_second_try_the_one_that_is_worth_most(
    policy: RetentionPolicy, refused: tuple[int, ...], epochs_there: list[int], folder: Path
) -> None:
    made = committer(policy)
    in_the_way = [refuse(folder, epoch) for epoch in refused]
    for count in (1, 2, 3):  # of which the second is the best one
        commit(made, epochs(count))
    for path in in_the_way:
        path.rmdir()
    made.save_refused()
    there = survey_folder(folder).checkpoints
    assert [record.epoch for record in there if record.kind is Kind.EPOCH] == epochs_there


def test_a_disk_that_does_not_answer_about_a_durable_checkpoint_refuses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.stat

    def asked(path: Path, **named: bool) -> os.stat_result:
        if path.name == "checkpoint_epoch_1.pth":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return original(path, **named)

    made = committer(RetentionPolicy())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", asked)
        outcome = commit(made, epochs(1))
    assert (outcome.path, outcome.refused) == (folder / "checkpoint_epoch_1.pth", "")


def test_a_refused_state_whose_memory_was_needed_again_is_not_saved_as_what_it_was(folder: Path) -> None:
    made, control = committer(RetentionPolicy()), SaveControl(keeps_payload=True)
    in_the_way = refuse(folder, 1)
    assert made.commit(*take_snapshot(epochs(1), FACTS, Kind.EPOCH), control).refused
    control.keeps_payload = False
    in_the_way.rmdir()
    assert made.save_refused() is None
    assert names_in(folder) == []


def test_without_memory_for_a_copy_a_refused_state_is_let_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.saving.background_copies.free_memory_bytes", lambda: 0)
    made = committer(RetentionPolicy())
    refuse(folder, 1)
    assert commit(made, epochs(1)).refused
    assert made.save_refused() is None


def test_what_was_left_undone_after_the_last_save_is_tried_once_more(folder: Path) -> None:
    made = committer(KEEP_1)
    commit(made, epochs(1))
    (folder / "best_checkpoint_eer.pth").unlink()
    (folder / "best_checkpoint_eer.pth").mkdir()
    assert commit(made, epochs(2)).warnings
    (folder / "best_checkpoint_eer.pth").rmdir()
    made.catch_up()
    assert (folder / "best_checkpoint_eer.pth").samefile(folder / "checkpoint_epoch_2.pth")
    assert not (folder / "checkpoint_epoch_1.pth").exists()


def test_processor_time_is_that_beside_training_and_not_what_held_up_the_loop(folder: Path) -> None:
    """With --sync_save the loop's wait is all that a save takes: it would count twice."""
    made, state = committer(KEEP_1), epochs(1)
    assert commit(made, state).cpu_seconds == 0
    beside = made.commit(*take_snapshot(state, FACTS, Kind.EPOCH), SaveControl(keeps_payload=True))
    assert beside.cpu_seconds > 0
