"""A compressed checkpoint is the same checkpoint to every reader, and compressing one never costs it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.comparing import differences
from tests.conftest import REPOSITORY
from tests.loading import load_payload
from tests.records import flip_a_bit, record, write_foreign_weights
from tests.small_state import FACTS, complete_epoch, seed_everything, small_state, train
from tests.test_retention import LINEAGE, epoch, files, short
from training.checkpoints import sealed_file
from training.checkpoints.appended import written_out
from training.checkpoints.checking import Verdict, check_file
from training.checkpoints.examined import examine
from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.inspection import inspect_file
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.sealed_file import broken_seal, read_record
from training.saving import compression
from training.saving.compression import compress_file, files_to_compress
from training.saving.store import save_checkpoint
from training.state.snapshot import take_snapshot
from utils.atomic_files import remove_stray_temporaries

NAME = "checkpoint_epoch_1.pth"


def write(path: Path) -> dict[str, Any]:
    """Write the checkpoint of a small net, whole as the program writes it, and return its payload."""
    state = small_state()
    seed_everything(1)
    train(state, 10)
    complete_epoch(state)
    payload, made = take_snapshot(state, FACTS, Kind.EPOCH)
    payload = {"validations": []} | payload
    save_checkpoint(path, payload, replace(made, name=path.name))
    return written_out(payload)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint that is not compressed yet."""
    write(tmp_path / NAME)
    return tmp_path / NAME


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_the_bytes_saved_are_told(path: Path) -> None:
    before = path.stat().st_size
    saved = compress_file(path)
    assert saved == before - path.stat().st_size
    assert saved > 0


def test_training_resumes_from_the_same_bits(tmp_path: Path) -> None:
    payload = write(tmp_path / NAME)
    compress_file(tmp_path / NAME)
    assert differences(load_payload(tmp_path / NAME), payload) == []


def test_it_lists_validates_and_is_inspected_as_before(path: Path) -> None:
    before = examine(path)
    assert isinstance(before, CheckpointRecord)
    shown = inspect_file(path)
    compress_file(path)
    after = replace(before, bytes_on_disk=path.stat().st_size)
    assert examine(path) == after
    assert inspect_file(path) == replace(shown, bytes_on_disk=after.bytes_on_disk, record=after)
    assert check_file(path).verdict is Verdict.OK


def test_everything_is_deflated_but_the_record_which_stays_last(path: Path) -> None:
    """So that listing still finds the record without unpacking anything."""
    before = read_record(path)
    compress_file(path)
    with zipfile.ZipFile(path) as archive:
        *content, last = archive.infolist()
    assert {entry.compress_type for entry in content} == {zipfile.ZIP_DEFLATED}
    assert (last.filename, last.compress_type) == ("archive/record.json", zipfile.ZIP_STORED)
    with path.open("rb") as file:
        assert sealed_file._last_record(file) == before


@pytest.mark.skipif(shutil.which("unzip") is None, reason="needs unzip")
def test_the_unzip_command_finds_no_error(path: Path) -> None:
    compress_file(path)
    subprocess.run(["unzip", "-tq", str(path)], capture_output=True, check=True)


def test_a_flipped_bit_is_found_at_every_byte(path: Path) -> None:
    compress_file(path)
    data, unnoticed = bytearray(path.read_bytes()), []
    for position in range(0, len(data), 7):
        data[position] ^= 1 << position % 8
        path.write_bytes(data)
        if broken_seal(path) is None:
            unnoticed.append(position)
        data[position] ^= 1 << position % 8
    assert unnoticed == []


@pytest.mark.parametrize(
    "fixture", sorted((REPOSITORY / "tests/fixtures").glob("format_*/*.pth")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_a_file_of_an_earlier_format_holds_the_same_afterwards(tmp_path: Path, fixture: Path) -> None:
    path = Path(shutil.copy(fixture, tmp_path))
    assert compress_file(path) > 0
    assert differences(torch.load(path, weights_only=True), torch.load(fixture, weights_only=True)) == []
    assert (read_record(path), broken_seal(path)) == (read_record(fixture), None)


def test_entries_whose_sizes_need_64_bits_load_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = load_payload(path)
    monkeypatch.setattr(compression, "_ZIP64_FROM_BYTES", 0)
    compress_file(path)
    assert differences(load_payload(path), payload) == []


def test_the_time_of_change_stays(path: Path) -> None:
    """The most recently written checkpoint of a folder is told by it."""
    os.utime(path, (1_790_000_000, 1_790_000_000))
    compress_file(path)
    assert path.stat().st_mtime == 1_790_000_000


def compressed(path: Path) -> Path:
    compress_file(path)
    return path


def linked(path: Path) -> Path:
    path.with_name("best_checkpoint_eer.pth").hardlink_to(path)
    return path


def symbolic(path: Path) -> Path:
    link = path.with_name("link.pth")
    link.symlink_to(path)
    return link


def foreign(path: Path) -> Path:
    write_foreign_weights(path)
    return path


def old_pickle(path: Path) -> Path:
    torch.save({"weight": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("made", [compressed, linked, symbolic, foreign, old_pickle])
def test_what_cannot_gain_or_is_not_ours_is_left_alone(path: Path, made: Callable[[Path], Path]) -> None:
    found = made(path)
    before = found.lstat(), found.read_bytes()
    assert compress_file(found) == 0
    after = found.lstat()
    assert (before[0].st_ino, before[0].st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert found.read_bytes() == before[1]


def flip_padding(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"FB") + 20] ^= 1  # torch fills up with Z before each entry's content
    path.write_bytes(content)


def flip_a_weight(path: Path) -> None:
    write_checkpoint_with_weights(path)
    flip_a_bit(path)


def write_checkpoint_with_weights(path: Path) -> None:
    save_checkpoint(path, {"model_state_dict": {"weight": torch.arange(64.0)}}, record(path, 1, name=path.name))


@pytest.mark.parametrize("damage", [flip_padding, flip_a_weight])
def test_damage_is_not_sealed_anew(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    before = path.read_bytes()
    with pytest.raises(BadCheckpointFileError, match="its checksum does not match"):
        compress_file(path)
    assert path.read_bytes() == before
    assert names_in(path.parent) == [NAME]


def forget_an_entry(old: zipfile.ZipFile, writer: Any, check: Any) -> None:
    with zipfile.ZipFile(writer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist()[:-2]:
            new.writestr(entry.filename, old.read(entry))


def change_a_byte(old: zipfile.ZipFile, writer: Any, check: Any) -> None:
    with zipfile.ZipFile(writer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist()[:-1]:
            new.writestr(entry.filename, old.read(entry)[:-1] + b"\xff")


@pytest.mark.parametrize("mistake", [forget_an_entry, change_a_byte])
def test_content_that_differs_never_replaces_the_old(
    path: Path, monkeypatch: pytest.MonkeyPatch, mistake: Callable[[zipfile.ZipFile, Any, Any], None]
) -> None:
    before = path.read_bytes()
    monkeypatch.setattr(compression, "_deflate", mistake)
    with pytest.raises(BadCheckpointFileError, match="its content would differ: the file is left as it was"):
        compress_file(path)
    assert path.read_bytes() == before
    assert names_in(path.parent) == [NAME]


@pytest.fixture
def room_for() -> Iterator[Callable[[int], None]]:
    """Return a function that limits every file to so many bytes, as a disk that fills up does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_at_any_byte_leaves_the_old_file(path: Path, room_for: Callable[[int], None]) -> None:
    before = path.read_bytes()
    size = compressed(Path(shutil.copy(path, path.with_name("other.pth")))).stat().st_size
    path.with_name("other.pth").unlink()
    for room in [*range(0, size, 499), size - 1]:
        room_for(room)
        with pytest.raises(OSError, match="File too large"):
            compress_file(path)
    assert path.read_bytes() == before
    assert names_in(path.parent) == [NAME]


@pytest.mark.parametrize("instant", ["read_record", "write_sealed", "_deflate", "_refuse_difference", "os.utime"])
def test_a_process_killed_in_the_middle_leaves_the_old_file(path: Path, instant: str) -> None:
    """Killed as it leaves the step of that name."""
    before = path.read_bytes()
    script = (
        "import os, signal, sys, pathlib\n"
        f"from training.saving import compression\nstep = compression.{instant}\n"
        "def killed(*a, **k):\n    step(*a, **k)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"compression.{instant} = killed\ncompression.compress_file(pathlib.Path(sys.argv[1]))\n"
    )
    child = subprocess.run([sys.executable, "-c", script, path], cwd=REPOSITORY, capture_output=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert path.read_bytes() == before
    remove_stray_temporaries(path.parent)
    assert names_in(path.parent) == [NAME]


# (the files, how many newer ones of its kind a file must have, what is compressed, why)
OLD_ENOUGH: list[tuple[str, int, str, str]] = [
    ("", 1, "", "nothing is there"),
    ("e1", 1, "", "the newest of its kind"),
    ("e1 e2", 1, "e1", "one newer"),
    ("e1 e2 e3 e4", 2, "e1 e2", "two newer"),
    ("e1 e2", 5, "", "not enough of them"),
    ("s4 s8 e1 s12 e2", 1, "s4 s8 e1", "each kind by itself, oldest first"),
    ("s4 e1 e2 e3", 1, "e1 e2", "epochs do not make a step file old"),
]


@pytest.mark.parametrize(("there", "after", "expected", "why"), OLD_ENOUGH)
def test_a_file_is_compressed_once_enough_newer_ones_are_there(there: str, after: int, expected: str, why: str) -> None:
    for records in (files(there), files(there)[::-1]):
        assert " ".join(map(short, files_to_compress(records, LINEAGE, after))) == expected, why


def test_only_files_of_the_run_are_compressed_and_count() -> None:
    foreign_run = epoch(1, lineage=(("run-b", 0),))
    copy = epoch(2, path=Path("models/run/precious.pth"))
    assert files_to_compress([foreign_run, copy, epoch(2), epoch(3)], LINEAGE, 1) == [epoch(2).path]
