"""The invariants of training/saving/store.py, each on real files of a two-layer net."""

from __future__ import annotations

import collections
import os
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.comparing import differences
from tests.loading import load_payload, load_weights
from tests.small_state import FACTS, OPTIONS, complete_epoch, seed_everything, small_state, train
from tests.tracing import needs_strace, traced
from training.checkpoints.appended import written_out
from training.checkpoints.examined import WeightsFile, examine
from training.checkpoints.record import REQUIRED_KEYS, CheckpointRecord, Kind
from training.runs.directory import RunDirectory
from training.runs.lock import RunLock
from training.runs.names import CheckpointNames
from training.saving import store as store_module
from training.saving.store import (
    CannotSaveError,
    CheckpointStore,
    save_checkpoint,
)
from training.state.snapshot import take_snapshot
from training.state.train_state import TrainState
from utils.errors import UserError

REPOSITORY = Path(__file__).parent.parent
Payload = dict[str, Any]


@pytest.fixture
def store(workplace: Path) -> CheckpointStore:
    """The store of an empty run folder."""
    made = CheckpointStore(RunDirectory.of(OPTIONS), CheckpointNames.of(OPTIONS))
    made.run.folder.mkdir(parents=True)
    return made


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def trained(epochs: int, val_eers: tuple[float, ...] = (5.0, 3.0, 4.0, 2.0)) -> TrainState:
    state = small_state()
    seed_everything(1)
    for epoch in range(epochs):
        train(state, 10)
        complete_epoch(state, val_eers[epoch])
    return state


def commit(store: CheckpointStore, state: TrainState) -> tuple[Path, Payload, CheckpointRecord]:
    """Save an epoch the way the loop does, but for the best files."""
    payload, record = take_snapshot(state, FACTS, Kind.EPOCH)
    return store.save(payload, record), payload, record


def examined(path: Path) -> CheckpointRecord:
    found = examine(path)
    assert isinstance(found, CheckpointRecord), found
    return found


def test_a_checkpoint_comes_back_as_it_was_saved(store: CheckpointStore) -> None:
    path, payload, record = commit(store, trained(2))
    assert path == store.run.folder / "checkpoint_epoch_2.pth"
    assert differences(load_payload(path), written_out(payload)) == []
    assert examined(path) == replace(record, path=path, bytes_on_disk=path.stat().st_size, name=path.name)


def test_a_checkpoint_holds_the_keys_of_every_documented_system(store: CheckpointStore) -> None:
    path, *_ = commit(store, trained(2))
    loaded = torch.load(path, weights_only=True)
    documented = {  # requirements A5
        "epoch": int,
        "model_state_dict": collections.OrderedDict,
        "optimizer_state_dict": dict,
        "train_loss": float,
        "train_eer": float,
        "val_loss": float,
        "val_acc": float,
        "val_eer": float,
        "best_val_eer": float,
        "args": dict,
    } | {  # B6 and C2
        "step": int,
        "scheduler_state_dict": dict,
        "config": dict,
        "random_states": dict,
        "metrics": dict,
    }
    assert {key: type(loaded[key]) for key in documented} == documented
    assert set(loaded["random_states"]) == {"python", "numpy", "torch", "torch_cuda"}
    assert (loaded["epoch"], loaded["val_eer"], loaded["best_val_eer"]) == (2, 3.0, 3.0)


@pytest.mark.parametrize(("name", "steps"), [("checkpoint_epoch_2.pth", 20), ("checkpoint_step_24.pth", 24)])
@pytest.mark.parametrize("number", [1, 2])
def test_a_checkpoint_of_an_earlier_format_is_resumed(number: int, name: str, steps: int) -> None:
    """Files under tests/fixtures were written by the program of their time, on a processor with other last bits."""
    state = small_state(weights_seed=99)
    file = REPOSITORY / "tests" / "fixtures" / f"format_{number}" / name
    state.restore(load_payload(file), file)
    assert (state.epoch, state.step, state.history.validations) == (2, steps, [])
    before = trained(2)
    train(before, steps - 20)
    theirs, ours = state.networks["model"].state_dict(), before.networks["model"].state_dict()
    torch.testing.assert_close(dict(theirs), dict(ours), rtol=1e-4, atol=1e-6)


def test_the_metadata_say_when_where_and_with_what(store: CheckpointStore) -> None:
    """Requirement C5: what of it the environment does not supply is worked out from the state."""
    path, *_ = commit(store, trained(1))
    metadata = torch.load(path, weights_only=True)["metadata"]
    assert metadata["num_parameters"] == 3 * 4 + 4 + 4 * 2 + 2
    assert {"saved_at", "training_seconds", "torch", "num_threads"} <= set(metadata)
    assert examined(path).metadata == metadata


def test_a_step_checkpoint_is_named_for_its_step(store: CheckpointStore) -> None:
    state = trained(1)
    train(state, 4)
    path = store.save(*take_snapshot(state, FACTS, Kind.STEP))
    assert path.name == "checkpoint_step_14.pth"
    assert examined(path).is_mid_epoch


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.float64(1.0), "is a float64"),
        (np.zeros(3), "is a ndarray"),
        (Path("models"), "is a PosixPath"),
        (torch.float32, "is a dtype"),
        ({1, 2}, "is a set"),
        (collections.defaultdict(int), "is a defaultdict"),
        (collections.ChainMap(), "is a ChainMap"),
        (Kind.EPOCH, "is a Kind"),
        (OPTIONS, "is a Options"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_is_not_plain_is_refused_before_anything_is_written(
    store: CheckpointStore, value: object, named: str
) -> None:
    payload, record = take_snapshot(trained(1), FACTS, Kind.EPOCH)
    with pytest.raises(TypeError, match=r"checkpoint_epoch_1.pth\['config'\]\['deep'\] " + named):
        store.save(payload | {"config": {"deep": [("x", value)]}}, record)
    assert names_in(store.run.folder) == []


def test_the_best_checkpoint_is_the_same_file_as_its_epoch(store: CheckpointStore) -> None:
    state = trained(2)
    path, payload, record = commit(store, state)
    store.mark_best(path, payload, record)
    assert store.run.best_checkpoint.samefile(path)
    assert names_in(store.run.folder) == ["best_checkpoint_eer.pth", "best_model_eer.pth", "checkpoint_epoch_2.pth"]


def test_the_best_weights_alone_start_a_run_and_resume_none(store: CheckpointStore) -> None:
    state = trained(2)
    path, payload, record = commit(store, state)
    store.mark_best(path, payload, record)
    found = examine(store.run.best_weights)
    assert isinstance(found, WeightsFile)
    assert (found.epoch, found.record and found.record.last and found.record.last["val_eer"]) == (2, 3.0)
    weights = load_weights(store.run.best_weights)
    assert differences(dict(weights.state_dict), dict(state.networks["model"].state_dict())) == []
    assert weights.payload["front_end_config"] == FACTS.builds["front_end_config"]
    with pytest.raises(UserError, match="not a full checkpoint: it lacks optimizer_state_dict"):
        load_payload(store.run.best_weights)


def killed_before(store: CheckpointStore, what: str) -> CheckpointRecord:
    """Leave the folder as a process killed in the middle of committing epoch 2, the new best, leaves it."""
    for epoch in (1, 2):
        path, payload, record = commit(store, trained(epoch))
        if epoch == 1 or what == "nothing":
            store.mark_best(path, payload, record)
    if what == "the best weights":
        store.run.best_checkpoint.unlink()
        store.run.best_checkpoint.hardlink_to(path)
    return examined(path)


@pytest.mark.parametrize("what", ["the best link", "the best weights", "nothing"])
def test_a_kill_between_a_checkpoint_and_its_best_files_is_mended(store: CheckpointStore, what: str) -> None:
    resumed = killed_before(store, what)
    assert store.restore_best(resumed, [store.run.folder]) is None
    assert store.run.best_checkpoint.samefile(resumed.path)
    best = examine(store.run.best_weights)
    assert isinstance(best, WeightsFile)
    assert best.epoch == 2


def test_a_best_file_that_was_damaged_is_made_again_from_its_epoch(store: CheckpointStore) -> None:
    resumed = killed_before(store, "nothing")
    flip_bit(store.run.best_weights)
    assert store.restore_best(resumed, [store.run.folder]) is None
    load_weights(store.run.best_weights)


def test_intact_best_files_are_not_written_again(store: CheckpointStore) -> None:
    resumed = killed_before(store, "nothing")
    before = store.run.best_weights.stat()
    assert store.restore_best(resumed, [store.run.folder]) is None
    assert store.run.best_weights.stat() == before


def test_resuming_from_before_the_best_brings_back_the_earlier_best(store: CheckpointStore) -> None:
    """Its file was moved aside with what lies past the checkpoint, so other folders are searched too."""
    killed_before(store, "nothing")
    first = examined(store.run.epoch_checkpoint(1))
    aside = store.run.version_folder(1)
    aside.mkdir()
    for path in (store.run.epoch_checkpoint(2), store.run.best_checkpoint, store.run.best_weights):
        path.rename(aside / path.name)
    assert store.restore_best(first, [store.run.folder, aside]) is None
    assert store.run.best_checkpoint.samefile(first.path)


def test_a_best_epoch_that_is_gone_is_said(store: CheckpointStore) -> None:
    resumed = killed_before(store, "the best link")
    resumed.path.unlink()
    said = store.restore_best(resumed, [store.run.folder])
    assert said is not None
    assert "the best epoch so far is 2" in said
    assert "best_checkpoint_eer.pth appears when" in said


def test_the_same_figures_of_another_run_are_not_taken_for_the_best(store: CheckpointStore) -> None:
    path, payload, record = commit(store, trained(2))
    stranger = replace(record, lineage=(("run-b", 0),))
    save_checkpoint(path, payload, stranger)
    assert store.restore_best(replace(record, path=path), [store.run.folder]) is not None
    assert not store.run.best_checkpoint.exists()


def test_before_the_first_epoch_there_is_no_best_to_restore(store: CheckpointStore) -> None:
    state = small_state()
    train(state, 2)
    _, record = take_snapshot(state, FACTS, Kind.STEP)
    assert store.restore_best(record, [store.run.folder]) is None
    assert names_in(store.run.folder) == []


@pytest.mark.parametrize(("steps", "name"), [(0, "checkpoint_epoch_2.pth"), (4, "checkpoint_step_24.pth")])
def test_a_checkpoint_of_another_folder_is_brought_along_whole(store: CheckpointStore, steps: int, name: str) -> None:
    elsewhere = CheckpointStore(RunDirectory(Path("models/elsewhere")), CheckpointNames.of(OPTIONS))
    elsewhere.run.folder.mkdir()
    state = trained(2)
    train(state, steps)
    path = elsewhere.save(*take_snapshot(state, FACTS, Kind.STEP if steps else Kind.EPOCH))
    for _ in range(2):  # a start that was killed right after is repeated
        store.bring_along(examined(path))
    assert names_in(store.run.folder) == [name]
    assert differences(load_payload(store.run.folder / name), load_payload(path)) == []
    assert path.exists()


def test_bringing_along_what_is_gone_is_a_sentence(store: CheckpointStore) -> None:
    path, *_ = commit(store, trained(1))
    found = examined(path)
    path.unlink()
    with pytest.raises(UserError, match="could not be saved: No such file or directory"):
        store.bring_along(found)


@pytest.fixture
def room_for() -> Iterator[Callable[[int], None]]:
    """Return a function that limits every file to so many bytes, as a disk that fills up does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_save_leaves_the_earlier_file_whole(store: CheckpointStore, room_for: Callable[[int], None]) -> None:
    """However far it got: in torch's part, in the record or in the seal."""
    path, payload, record = commit(store, trained(1))
    earlier = path.read_bytes()
    payload["args"] = payload["args"] | {"comment": "another"}
    for room in [*range(0, len(earlier), 997), len(earlier) - 1]:
        room_for(room)
        with pytest.raises(
            UserError,
            match=r"checkpoint_epoch_1.pth could not be saved: File too large; earlier checkpoints are",
        ):
            store.save(payload, record)
    assert path.read_bytes() == earlier
    assert names_in(store.run.folder) == [path.name]


def test_a_full_disk_is_a_sentence_and_nothing_is_lost(tiny_disk: Path) -> None:
    path = tiny_disk / "checkpoint_epoch_1.pth"
    payload, record = take_snapshot(trained(1), FACTS, Kind.EPOCH)
    save_checkpoint(path, payload, record)
    earlier = path.read_bytes()
    with pytest.raises(UserError, match=r"could not be saved: it needs .* are free in"):
        save_checkpoint(path, payload | {"more": torch.zeros(60_000)}, record)
    assert path.read_bytes() == earlier
    assert names_in(tiny_disk) == [path.name]


def test_a_folder_that_is_gone_is_a_sentence(store: CheckpointStore) -> None:
    payload, record = take_snapshot(trained(1), FACTS, Kind.EPOCH)
    store.run.folder.rmdir()
    with pytest.raises(UserError, match="could not be saved: No such file or directory"):
        store.save(payload, record)


SAVE_THREE_TIMES = """
import sys
from pathlib import Path
from tests.small_state import FACTS, small_state
from training.checkpoints.record import Kind
from training.state.snapshot import take_snapshot
from training.saving.store import CannotSaveError, save_checkpoint
payload, record = take_snapshot(small_state(), FACTS, Kind.EPOCH)
for attempt in range(3):
    try:
        save_checkpoint(Path("checkpoint_epoch_1.pth"), payload | {"attempt": attempt}, record)
        print("saved")
    except CannotSaveError as error:
        print(error)
"""


@needs_strace
def test_a_quota_that_shows_at_fsync_and_a_rename_that_is_refused_are_sentences(workplace: Path) -> None:
    """NFS tells of a quota only when the file is synced."""
    path = workplace / "checkpoint_epoch_1.pth"
    path.write_text("earlier")
    refusals = ["-e", "inject=fsync:error=EDQUOT:when=1", "-e", "inject=/^rename:error=EROFS:when=1"]
    done = traced(["-o", "/dev/null", *refusals], [sys.executable, "-c", SAVE_THREE_TIMES], workplace)
    assert done.stdout.splitlines() == [
        "checkpoint_epoch_1.pth could not be saved: Disk quota exceeded; earlier checkpoints are untouched",
        "checkpoint_epoch_1.pth could not be saved: Read-only file system; earlier checkpoints are untouched",
        "saved",
    ]
    assert torch.load(path, weights_only=True)["attempt"] == 2
    assert names_in(workplace) == [path.name]


@pytest.fixture
def locked_store(workplace: Path) -> Iterator[CheckpointStore]:
    """The store of a run folder that this process holds, as it is in training."""
    run = RunDirectory.of(OPTIONS)
    run.folder.mkdir(parents=True)
    with RunLock(run.lock) as lock:
        yield CheckpointStore(run, CheckpointNames.of(OPTIONS), lock)


def test_a_folder_that_is_gone_is_made_again_by_the_next_save(locked_store: CheckpointStore) -> None:
    shutil.rmtree(locked_store.run.folder)
    payload, record = take_snapshot(trained(1), FACTS, Kind.EPOCH)
    assert "was removed, replaced or unmounted" in (locked_store.hold_folder(record) or "")
    path = locked_store.save(payload, record)
    locked_store.mark_best(path, payload, record)
    assert names_in(locked_store.run.folder) == [
        ".lock",
        "best_checkpoint_eer.pth",
        "best_model_eer.pth",
        "checkpoint_epoch_1.pth",
    ]


def test_a_folder_of_another_process_is_not_written_to(locked_store: CheckpointStore) -> None:
    shutil.rmtree(locked_store.run.folder)
    locked_store.run.folder.mkdir()
    locked_store.run.lock.write_text("host elsewhere, process 7\n")
    with pytest.raises(CannotSaveError, match=r"epoch_1.pth could not be saved: .* \(host elsewhere, process 7\) has"):
        locked_store.hold_folder(take_snapshot(trained(1), FACTS, Kind.EPOCH)[1])
    assert names_in(locked_store.run.folder) == [".lock"]


def flip_bit(path: Path, where: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 4
    path.unlink()  # the same inode may have a second name
    path.write_bytes(data)


@pytest.mark.parametrize("where", [0.01, 0.2, 0.4, 0.6, 0.8, 0.9999])
@pytest.mark.parametrize("load", [load_payload, load_weights])
def test_a_flipped_bit_is_never_loaded(store: CheckpointStore, where: float, load: Callable[[Path], object]) -> None:
    path, *_ = commit(store, trained(1))
    flip_bit(path, where)
    with pytest.raises(UserError, match=r"checkpoint_epoch_1.pth is damaged: "):
        load(path)


class _RunsCode:
    """What a hostile file holds: unpickling it makes a file named `proof`."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, ("proof",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip format", "old pickle format"])
@pytest.mark.parametrize("load", [load_payload, load_weights])
def test_a_pickle_that_runs_code_is_refused(workplace: Path, zipped: bool, load: Callable[[Path], object]) -> None:
    path = workplace / "hostile.pth"
    torch.save({"model_state_dict": {"weight": _RunsCode()}}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"posix\.mkdir.*could run code, so it is refused"):
        load(path)
    assert not (workplace / "proof").exists()
    torch.load(path, weights_only=False)
    assert (workplace / "proof").exists(), "the file is not as hostile as this test believes"


@pytest.mark.parametrize("key", REQUIRED_KEYS)
def test_a_checkpoint_that_lacks_a_key_is_refused_by_name(store: CheckpointStore, key: str) -> None:
    payload, record = take_snapshot(trained(1), FACTS, Kind.EPOCH)
    del payload[key]
    path = store.save(payload, record)
    with pytest.raises(UserError, match=f"not a full checkpoint: it lacks {key}"):
        load_payload(path)


def test_every_test_that_the_invariants_name_exists() -> None:
    quoted = re.findall(r"(test_\w+)(?:\s+\((tests/\w+\.py)\))?", store_module.__doc__ or "")
    named = [(test, file) for test, file in quoted if test != "test_store"]
    assert len(named) >= 6
    missing = []
    for test, file in named:
        text = (REPOSITORY / (file or "tests/test_store.py")).read_text()
        if f"def {test}(" not in text:
            missing.append(test)
    assert missing == []
