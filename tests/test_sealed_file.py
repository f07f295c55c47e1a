"""The bytes of a checkpoint: every bit counts, every damage is named, and nothing but a sentence ever comes out."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.checkpoints import sealed_file
from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.sealed_file import broken_seal, read_record, write_sealed

RECORD = {"format": 1, "epoch": 3, "lr": 1e-06, "comment": "é"}
PAYLOAD = {"weight": torch.arange(40.0), "bias": torch.ones(3), "epoch": 3}


def write(path: Path) -> Path:
    with path.open("w+b") as file:
        write_sealed(file, lambda writer: torch.save(PAYLOAD, writer), RECORD)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed file that every test may read."""
    return write(tmp_path_factory.mktemp("sealed") / "checkpoint_epoch_3.pth")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of another program: what torch.save writes, without record and seal."""
    path = tmp_path_factory.mktemp("foreign") / "weights.pth"
    torch.save(PAYLOAD, path)
    return path


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the pickle format that torch wrote before version 1.6."""
    path = tmp_path_factory.mktemp("old") / "weights.pth"
    torch.save(PAYLOAD, path, _use_new_zipfile_serialization=False)
    return path


def flip(data: bytes, position: int, bit: int = 0) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def complaint_about(path: Path) -> str | None:
    """Return what is wrong with a file, by its record or by its seal."""
    try:
        read_record(path)
    except BadCheckpointFileError as error:
        return str(error)
    return broken_seal(path)


def test_torch_opens_a_sealed_file_with_weights_only(whole: Path) -> None:
    loaded = torch.load(whole, weights_only=True)
    assert list(loaded) == list(PAYLOAD)
    assert torch.equal(loaded["weight"], torch.arange(40.0))


def test_a_zip_library_reads_the_record(whole: Path) -> None:
    with zipfile.ZipFile(whole) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("archive/record.json")) == RECORD


@pytest.mark.skipif(shutil.which("unzip") is None, reason="needs unzip")
def test_the_unzip_command_shows_the_record(whole: Path) -> None:
    shown = subprocess.run(["unzip", "-p", str(whole), "*/record.json"], capture_output=True, check=True)
    assert json.loads(shown.stdout) == RECORD


def test_the_record_is_read_and_the_seal_holds(whole: Path) -> None:
    assert read_record(whole) == RECORD
    assert broken_seal(whole) is None


def test_a_record_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"), (tmp_path / "x.pth").open("w+b") as file:
        write_sealed(file, lambda writer: torch.save(PAYLOAD, writer), {"val_loss": float("nan")})


def test_a_flipped_bit_is_found_at_every_byte_of_the_file(whole: Path, tmp_path: Path) -> None:
    """Headers, padding, pickle, tensors, record, zip directory, end record and seal: no byte is unprotected."""
    data, damaged = whole.read_bytes(), tmp_path / "damaged.pth"
    unnoticed = []
    for position in range(len(data)):
        damaged.write_bytes(flip(data, position, position % 8))
        if broken_seal(damaged) is None:
            unnoticed.append(position)
    assert unnoticed == []


@pytest.mark.parametrize("bit", range(8))
def test_every_bit_of_the_seal_counts(whole: Path, tmp_path: Path, bit: int) -> None:
    data, damaged = whole.read_bytes(), tmp_path / "damaged.pth"
    for position in range(len(data) - 32, len(data)):
        damaged.write_bytes(flip(data, position, bit))
        assert broken_seal(damaged), position


@pytest.mark.parametrize("size", [1, 16, 512])
def test_a_zeroed_block_is_found_wherever_it_changes_a_byte(whole: Path, tmp_path: Path, size: int) -> None:
    data, damaged = whole.read_bytes(), tmp_path / "damaged.pth"
    for start in range(0, len(data), max(size, 23)):
        zeroed = data[:start] + bytes(len(data[start : start + size])) + data[start + size :]
        damaged.write_bytes(zeroed)
        assert (broken_seal(damaged) is None) == (zeroed == data), start


def test_a_file_cut_to_any_length_is_found_by_both_checks(whole: Path, tmp_path: Path) -> None:
    data, damaged = whole.read_bytes(), tmp_path / "damaged.pth"
    unnoticed = []
    for length in range(len(data) - 1, -1, -1):
        damaged.write_bytes(data[:length])
        if broken_seal(damaged) is None:
            unnoticed.append(length)
        if length < len(data) - 40:  # a cut within the seal leaves the record readable
            with pytest.raises(BadCheckpointFileError):
                read_record(damaged)
    assert unnoticed == []


@pytest.mark.parametrize("tail", [b"\0", b"x" * 40, bytes(4096)], ids=["one byte", "40 bytes", "a block of zeros"])
def test_appended_bytes_are_found(whole: Path, tmp_path: Path, tail: bytes) -> None:
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(whole.read_bytes() + tail)
    assert broken_seal(damaged)


def test_swapped_blocks_are_found(whole: Path, tmp_path: Path) -> None:
    data, damaged = whole.read_bytes(), tmp_path / "damaged.pth"
    damaged.write_bytes(data[:64] + data[128:192] + data[64:128] + data[192:])
    assert "checksum does not match" in (broken_seal(damaged) or "")


def test_the_complaint_quotes_both_checksums(whole: Path, tmp_path: Path) -> None:
    data, damaged = whole.read_bytes(), tmp_path / "damaged.pth"
    damaged.write_bytes(flip(data, 700))
    said = broken_seal(damaged) or ""
    assert data[-8:].decode() in said
    assert said.count("sealed") == 1


def test_a_file_of_ours_that_lost_its_seal_is_not_taken_for_a_foreign_one(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "unsealed.pth"
    shutil.copy(whole, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"edited with a zip tool"
    assert read_record(path) == RECORD
    assert broken_seal(path) == "its seal is missing or damaged"


def test_a_foreign_torch_file_has_no_record_and_is_intact(foreign: Path) -> None:
    assert read_record(foreign) is None
    assert broken_seal(foreign) is None


def test_a_foreign_torch_file_is_checked_entry_by_entry(foreign: Path, tmp_path: Path) -> None:
    """Without a seal only what the zip format protects is safe: the content of each entry."""
    data, damaged = foreign.read_bytes(), tmp_path / "damaged.pth"
    weights = data.index(torch.arange(40.0).numpy().tobytes())
    for position in (weights, weights + 77, weights + 159, data.index(b"epoch")):
        damaged.write_bytes(flip(data, position))
        assert " is damaged" in (broken_seal(damaged) or ""), position


def test_the_old_pickle_format_is_a_file_without_record(old: Path) -> None:
    assert read_record(old) is None
    assert broken_seal(old) is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "it is empty"),
        (bytes(5000), "not a checkpoint file"),
        (b"<html>404: not found</html>", "not a checkpoint file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a checkpoint file"),
        (pickle.dumps({"epoch": 3}, protocol=4), "it is a plain pickle"),
        (b"PK\x03\x04" + bytes(3000), "cut short"),
    ],
    ids=["empty", "zeros", "a web page", "a git-lfs pointer", "a plain pickle", "the start of a zip file"],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "checkpoint_epoch_3.pth"
    path.write_bytes(content)
    with pytest.raises(BadCheckpointFileError, match=complaint):
        read_record(path)
    assert complaint in (broken_seal(path) or "")


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "not one that torch wrote"),
        (["slides/chapter.xml"], "not one that torch wrote"),
        (["record.json", "archive/data.pkl"], "not one that torch wrote"),
    ],
    ids=["an empty zip file", "some document", "a record outside the top folder"],
)
def test_a_zip_file_that_torch_did_not_write_is_refused(tmp_path: Path, names: list[str], complaint: str) -> None:
    path = tmp_path / "checkpoint_epoch_3.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    with pytest.raises(BadCheckpointFileError, match=complaint):
        read_record(path)


@pytest.mark.parametrize("method", [8, 12, 14, 93], ids=["deflate", "bzip2", "lzma", "unknown to zipfile"])
def test_a_record_under_a_wrong_compression_is_damage(whole: Path, tmp_path: Path, method: int) -> None:
    data, damaged = bytearray(whole.read_bytes()), tmp_path / "damaged.pth"
    entry = data.rindex(b"PK\x01\x02")  # the record's, being the last of the zip directory
    data[entry + 10] = method
    damaged.write_bytes(data)
    with pytest.raises(BadCheckpointFileError, match=r"cannot be read|bad block"):
        read_record(damaged)


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "{", '"record"', "\udc80" * 2, "[" * 100_000], ids=lambda text: text[:8]
)
def test_a_record_that_is_no_json_object_is_damage(tmp_path: Path, text: str) -> None:
    path = tmp_path / "checkpoint_epoch_3.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/record.json", text.encode(errors="surrogateescape"))
    with pytest.raises(BadCheckpointFileError, match="its record"):
        read_record(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "missing.pth", "No such file"), (tmp_path, "it is a folder")):
        with pytest.raises(BadCheckpointFileError, match=f"cannot be read .*{reason}"):
            read_record(path)
        assert reason in (broken_seal(path) or "")


def damages(data: bytes, chance: random.Random) -> bytes:
    """Return `data` after one of the accidents that storage has; the end, where zip keeps its directory, more often."""
    start = chance.randrange(len(data)) if chance.random() < 0.5 else chance.randrange(len(data) * 2 // 3, len(data))
    other = chance.randrange(len(data))
    match chance.randrange(6):
        case 0:
            return flip(data, start, chance.randrange(8))
        case 1:
            return flip(flip(data, start, chance.randrange(8)), other, chance.randrange(8))
        case 2:
            return data[:start] + chance.randbytes(chance.choice([1, 4, 100])) + data[start + 4 :]
        case 3:
            return data[:start]
        case 4:
            return data[:start] + data[other : other + 30] + data[start + 30 :]
        case _:
            return data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]


@pytest.mark.parametrize("kind", ["whole", "foreign", "old"])
def test_no_damage_raises_anything_but_the_named_error(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    original: Path = request.getfixturevalue(kind)
    data, damaged, chance = original.read_bytes(), tmp_path / "damaged.pth", random.Random(20260101)
    for _ in range(700):
        damaged.write_bytes(damages(data, chance))
        found = complaint_about(damaged)
        if kind == "whole" and damaged.read_bytes() != data:
            assert found


class _Failing:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file: object, room: int) -> None:
        self._file, self._room = file, room

    def __getattr__(self, name: str) -> Callable[..., object]:
        return getattr(self._file, name)  # type: ignore[no-any-return]

    def write(self, data: bytes) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(28, "No space left on device")
        return self._file.write(data)  # type: ignore[attr-defined, no-any-return]


def test_a_disk_that_fills_up_at_any_byte_is_an_error(whole: Path, tmp_path: Path) -> None:
    """The record and the seal are written after torch is done: an error there must not be lost either."""
    size = whole.stat().st_size
    for room in range(0, size, 37):
        with (tmp_path / "x.pth").open("w+b") as file, pytest.raises((OSError, RuntimeError)):
            write_sealed(_Failing(file, room), lambda writer: torch.save(PAYLOAD, writer), RECORD)  # type: ignore[arg-type]


@pytest.mark.parametrize("hole", [0, (1 << 31) + 1], ids=["small", "beyond 2 GiB, where zip offsets grow"])
def test_the_record_is_found_without_listing_what_lies_before_it(tmp_path: Path, hole: int) -> None:
    """As zipfile finds it, and without zipfile, which takes half a second for a hundred files of a thousand tensors."""
    path = tmp_path / "checkpoint_epoch_3.pth"
    with path.open("w+b") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.start_dir += hole  # a hole in the file stands for the tensors
        archive.writestr(f"archive/{sealed_file.RECORD_NAME}", json.dumps(RECORD))
        archive.comment = b"bonafide sealed crc32:00000000"
    with zipfile.ZipFile(path) as archive:
        by_zipfile = json.loads(archive.read(f"archive/{sealed_file.RECORD_NAME}"))
    with path.open("rb") as whole_file:
        assert sealed_file._last_record(whole_file) == by_zipfile == RECORD
