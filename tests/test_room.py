"""Room for a checkpoint: how much a payload needs, and that too little is noticed before anything is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.small_disk import fill, mounted
from tests.small_state import FACTS, small_state
from training.checkpoints.record import Kind
from training.saving.room import lack_of_room, tensor_bytes
from training.saving.store import CannotSaveError, save_checkpoint
from training.state.snapshot import take_snapshot
from utils.file_systems import free_bytes

WEIGHT = torch.zeros(1000)


@pytest.mark.parametrize(
    ("payload", "expected", "why"),
    [
        ({}, 0, "nothing"),
        ({"epoch": 3, "lr": 0.1, "name": "x" * 100}, 0, "an estimate from below: values take some more"),
        ({"weight": WEIGHT}, 4000, "4 bytes each"),
        ({"a": {"b": [(WEIGHT.half(),)]}}, 2000, "however deep"),
        ({"weight": WEIGHT, "tied": WEIGHT}, 4000, "torch writes tied weights once"),
        ({"part": WEIGHT[:3]}, 4000, "torch writes the whole storage behind a part"),
        ({"front": WEIGHT[:3], "back": WEIGHT[3:]}, 4000, "and that once"),
        ({"nothing": torch.zeros(0), "weight": WEIGHT}, 4000, "an empty tensor"),
        ({"weight": torch.nn.Parameter(WEIGHT.clone()), "buffer": WEIGHT}, 8000, "two of the same values are two"),
    ],
)
def test_what_a_payload_needs(payload: dict[str, object], expected: int, why: str) -> None:
    assert tensor_bytes(payload) == expected, why


def test_the_need_of_a_real_state_is_a_little_less_than_its_file(tmp_path: Path) -> None:
    payload, record = take_snapshot(small_state(), FACTS, Kind.EPOCH)
    payload["more"] = torch.zeros(1_000_000)
    save_checkpoint(tmp_path / "checkpoint_epoch_1.pth", payload, record)
    size = (tmp_path / "checkpoint_epoch_1.pth").stat().st_size
    assert size - 100_000 < tensor_bytes(payload) < size


def test_too_little_room_is_said_with_both_sizes_and_nothing_is_written(tiny_disk: Path) -> None:
    payload, record = take_snapshot(small_state(), FACTS, Kind.EPOCH)
    before = tiny_disk.stat().st_mtime_ns
    with pytest.raises(CannotSaveError) as raised:
        save_checkpoint(tiny_disk / "checkpoint_epoch_1.pth", payload | {"more": torch.zeros(60_000)}, record)
    assert re.search(rf"saved: it needs 2\d\d\.\d kB and 65\.5 kB are free in {tiny_disk}; earlier", str(raised.value))
    assert tiny_disk.stat().st_mtime_ns == before, "a file was made in the folder"


def test_sizes_that_read_the_same_are_given_in_bytes(tiny_disk: Path) -> None:
    assert lack_of_room(tiny_disk, {"weight": torch.zeros(65_537, dtype=torch.uint8)}) == (
        f"it needs 65,537 bytes and 65,536 bytes are free in {tiny_disk}"
    )


def test_what_fits_exactly_is_left_to_the_disk_to_judge(tiny_disk: Path) -> None:
    assert lack_of_room(tiny_disk, {"weight": torch.zeros(65_536, dtype=torch.uint8)}) is None


def test_a_disk_that_fills_up_in_mid_write_is_a_sentence_and_nothing_is_lost(tiny_disk: Path) -> None:
    """Four hundred tensors of one number each: 1,600 bytes by the estimate, far more as a file."""
    payload, record = take_snapshot(small_state(), FACTS, Kind.EPOCH)
    path = tiny_disk / "checkpoint_epoch_1.pth"
    save_checkpoint(path, payload, record)
    earlier = path.read_bytes()
    payload["more"] = [torch.zeros(1) for _ in range(400)]
    with pytest.raises(CannotSaveError, match="could not be saved: No space left on device; earlier checkpoints are"):
        save_checkpoint(path, payload, record)
    assert path.read_bytes() == earlier
    assert list(tiny_disk.iterdir()) == [path]


def test_the_room_that_is_left_is_what_the_file_system_says(tiny_disk: Path) -> None:
    assert free_bytes(tiny_disk) == 65_536
    fill(tiny_disk, leave=8192)
    assert free_bytes(tiny_disk) == 8192


@pytest.mark.parametrize("folder", ["/proc", "/no/such/folder"])
def test_a_file_system_that_gives_no_size_is_not_checked(folder: str) -> None:
    assert free_bytes(Path(folder)) is None
    assert lack_of_room(Path(folder), {"weight": WEIGHT}) is None


def test_a_tmpfs_without_a_limit_is_not_full(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=0", "none") as disk:
        assert free_bytes(disk) is None
