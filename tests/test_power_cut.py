"""Power is cut after each system call of a save, on a real ext4 file system; a valid checkpoint is there each time."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.ext4_image import UNFORGIVING, make_image, mounted, partly_written, why_not_here
from tests.watched_saves import RUN, Moment
from training.checkpoints.examined import UnusableFile, examine
from training.checkpoints.sealed_file import broken_seal

Found = dict[str, int | str]


@pytest.fixture(scope="module", autouse=True)
def _on_ext4() -> None:
    reason = why_not_here()
    if reason:
        pytest.skip(reason)


def moments_of(folder: Path, protocol: str, mount_options: tuple[str, ...], *arguments: str) -> list[Moment]:
    """Run a protocol in a process of its own and return the moments at which power may be cut."""
    image, copies = folder / "image", folder / "copies"
    copies.mkdir()
    make_image(image)
    with mounted(image, folder / "mount", *UNFORGIVING, *mount_options) as mount:
        command = [sys.executable, "-m", "tests.watched_saves", protocol, mount, image, copies, *arguments]
        ended = subprocess.run(
            list(map(str, command)),
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
    return [Moment(**json.loads(line)) for line in (copies / "moments.jsonl").read_text().splitlines()]


def found_in(image: Path) -> Found:
    """Mount an image after the power cut; return the epoch of each file under a checkpoint's name, or its damage."""
    found: Found = {}
    with mounted(image, image.parent / "after_the_cut") as mount:
        for path in sorted((mount / RUN.folder).glob("*.pth")):
            record = examine(path)
            reason = broken_seal(path) or (record.reason if isinstance(record, UnusableFile) else "")
            found[path.name] = reason or int(getattr(record, "epoch", None) or 0)
    return found


def losses(found: Found, moment: Moment) -> list[str]:
    """Return what a power cut cost: damaged files, and promised ones that are not there or older than promised."""
    lost = [f"{name} is damaged: {reason}" for name, reason in found.items() if isinstance(reason, str)]
    for name, epoch in moment.promised.items():
        held = found.get(name, found.get(moment.replaced_by.get(name, "")))
        if not isinstance(held, int) or held < epoch:
            lost.append(f"{name} of epoch {epoch} is not there: {held}")
    return lost


def losses_at(folder: Path, moments: list[Moment]) -> dict[str, list[str]]:
    """Return the losses of a power cut after each call that has some."""
    found = {image: found_in(folder / "copies" / image) for image in {moment.image for moment in moments}}
    every = {f"{i}: {moment.call}": losses(found[moment.image], moment) for i, moment in enumerate(moments)}
    return {call: lost for call, lost in every.items() if lost}


@pytest.fixture(scope="module")
def beside_a_neighbour(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Moment]]:
    """A folder with copies of the image, taken while another program kept fsyncing, and the moments they belong to."""
    folder = tmp_path_factory.mktemp("neighbour")
    return folder, moments_of(folder, "store", ("data=writeback",), "--neighbour")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Moment]]:
    """The same where nobody else uses the file system, which then keeps what it can in memory."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, moments_of(folder, "store", ("data=ordered",))


@pytest.mark.parametrize("circumstances", ["alone", "beside_a_neighbour"])
def test_a_power_cut_after_any_call_of_a_save_loses_nothing(circumstances: str, request: pytest.FixtureRequest) -> None:
    folder, moments = request.getfixturevalue(circumstances)
    calls = {moment.call.split()[0] for moment in moments}
    assert calls >= {"open", "write", "pwrite", "file_fsync", "replace", "folder_fsync", "link", "unlink", "mkdir"}
    assert len(moments) > 90
    assert losses_at(folder, moments) == {}
    assert found_in(folder / "copies" / moments[-1].image) == {
        "best_checkpoint_eer.pth": 1,
        "best_model_eer.pth": 1,
        "checkpoint_epoch_1.pth": 1,
        "checkpoint_epoch_3.pth": 3,
        "checkpoint_epoch_4.pth": 4,
        "checkpoint_step_5.pth": 0,
        "last_checkpoint.pth": 4,
    }


def test_a_power_cut_while_blocks_are_on_their_way_loses_nothing(beside_a_neighbour: tuple[Path, list[Moment]]) -> None:
    """Any part of them may have arrived, in any order that flushes allow."""
    folder, moments = beside_a_neighbour
    made, draw, tried = folder / "copies" / "partly_written", random.Random(20261124), 0
    for before, after in itertools.pairwise(moments):
        if before.image != after.image:
            partly_written(folder / "copies" / before.image, folder / "copies" / after.image, made, draw)
            assert losses(found_in(made), before) == [], f"during {after.call}"
            tried += 1
    assert tried > 90


@pytest.mark.parametrize(
    ("without", "lost"),
    [
        ("file_fsync", "checkpoint_epoch_2.pth is damaged"),
        ("folder_fsync", "checkpoint_epoch_2.pth of epoch 2 is not there"),
    ],
)
def test_without_one_of_its_fsyncs_the_store_would_lose_checkpoints(tmp_path: Path, without: str, lost: str) -> None:
    moments = moments_of(tmp_path, "store", ("data=writeback",), "--without", without)
    found = [loss for together in losses_at(tmp_path, moments).values() for loss in together]
    assert any(loss.startswith(lost) for loss in found), found


def test_writing_renaming_and_deleting_the_old_one_loses_everything(tmp_path: Path) -> None:
    """What trainers do that know nothing of power cuts."""
    moments = moments_of(tmp_path, "naive", ("data=ordered",), "--neighbour")
    (left,) = found_in(tmp_path / "copies" / moments[-1].image).items()
    assert left[0] == "checkpoint_epoch_2.pth" and isinstance(left[1], str), "the only file, and not damaged"
