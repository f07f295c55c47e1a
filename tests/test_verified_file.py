"""A verified file: opened once, every byte checked, and what is loaded is what was checked, whatever happens to it."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.comparing import differences
from tests.records import record
from training.checkpoints import file_bytes, verified_file
from training.checkpoints.examined import WeightsFile
from training.checkpoints.file_bytes import CHUNK_BYTES, FileBytes
from training.checkpoints.file_format import BadCheckpointFileError, NotUsableError
from training.checkpoints.frozen_reference import FrozenFile, FrozenReference
from training.checkpoints.left_out import places_of
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.sealed_file import broken_seal, write_sealed
from training.checkpoints.verified_file import BrokenFileError, VerifiedFile, open_verified, verify
from training.checkpoints.verified_load import load_verified
from training.saving.compression import compress_file
from utils.errors import UserError

Tensors = dict[str, Tensor]


def tensors(seed: int = 0) -> Tensors:
    """Two that span several chunks, not at their borders, and some that share one."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"large": 700_003, "small": 5, "larger": 900_001, "last": 77}
    return {name: torch.randn(size, generator=generator) for name, size in sizes.items()}


def write_ours(path: Path, content: Tensors) -> None:
    with path.open("w+b") as file:
        write_sealed(file, lambda writer: torch.save(content, writer), record(path.name, 3).as_dict())


def write_compressed(path: Path, content: Tensors) -> None:
    write_ours(path, content)
    compress_file(path)
    assert path.read_bytes()[8:10] == b"\x08\0"


def write_old(path: Path, content: Tensors) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


FORMATS: dict[str, tuple[str, Callable[[Path, Tensors], Any]]] = {
    "ours": ("a.pth", write_ours),
    "compressed": ("a.pth", write_compressed),
    "of torch": ("a.pt", lambda path, content: torch.save(content, path)),
    "before torch 1.6": ("a.pt", write_old),
    "safetensors": ("a.safetensors", lambda path, content: save_file(content, path)),
}
WITH_CHECKSUMS = ("ours", "compressed", "of torch")


def too_large_to_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_bytes, "CHUNKS_KEPT", 2)


@pytest.fixture(params=[True, False], ids=["small", "too large to stay in memory"])
def is_small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file stays in memory."""
    if not request.param:
        too_large_to_stay(monkeypatch)
    return bool(request.param)


def written(folder: Path, kind: str, content: Tensors) -> Path:
    name, write = FORMATS[kind]
    write(folder / name, content)
    return folder / name


def loaded(opened: VerifiedFile) -> Tensors:
    """Return what a file holds, in the order of `tensors`: safetensors come sorted."""
    found = load_verified(opened)
    return {name: found[name] for name in tensors()} if set(found) == set(tensors()) else found


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, position)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 4]), position)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_loaded_is_what_was_written(tmp_path: Path, kind: str, is_small: bool) -> None:
    opened = open_verified(written(tmp_path, kind, tensors()))
    assert differences(loaded(opened), tensors()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_is_opened_once_and_each_byte_is_read_once_and_once_more_to_where_its_values_go(
    tmp_path: Path, kind: str, is_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, kind, tensors())
    seen: Counter[str] = Counter()
    read, open_file = os.preadv, os.open

    def counted_read(descriptor: int, buffers: list[memoryview], start: int) -> int:
        found = read(descriptor, buffers, start)
        seen["bytes"] += found
        return found

    def counted_open(opened: Any, *arguments: Any, **named: Any) -> int:
        seen["opened"] += opened == path
        return open_file(opened, *arguments, **named)

    monkeypatch.setattr(os, "preadv", counted_read)
    monkeypatch.setattr(os, "open", counted_open)
    load_verified(open_verified(path))
    size = path.stat().st_size
    assert seen["opened"] == 1
    assert seen["bytes"] == size if is_small else 2 * size <= seen["bytes"] + CHUNK_BYTES * 2 <= 4 * size


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_replaced_after_it_was_opened_is_loaded_as_it_was(
    tmp_path: Path, kind: str, is_small: bool
) -> None:
    path = written(tmp_path, kind, tensors())
    opened = open_verified(path)
    (tmp_path / "other").mkdir()
    written(tmp_path / "other", kind, tensors(seed=1)).replace(path)
    assert not opened.is_at(path)
    assert differences(loaded(opened), tensors()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_a_small_file_that_is_overwritten_after_it_was_opened_is_loaded_as_it_was(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, tensors())
    opened = open_verified(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert differences(loaded(opened), tensors()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_too_large_to_stay_in_memory_that_is_changed_after_it_was_opened_is_refused_or_loaded_as_it_was(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was only where the change lies in the few chunks that are still in memory."""
    too_large_to_stay(monkeypatch)
    path = written(tmp_path, kind, tensors())
    size, refused = path.stat().st_size, 0
    for position in range(500, size, size // 12):
        opened = open_verified(path)
        flip(path, position)
        try:
            assert differences(loaded(opened), tensors()) == []
        except UserError as error:
            assert "is damaged: it cannot be read (it was changed after it was checked)" in str(error)
            refused += 1
        flip(path, position)
    assert refused >= 8
    assert differences(loaded(open_verified(path)), tensors()) == []


@pytest.mark.parametrize("kind", WITH_CHECKSUMS)
def test_a_flipped_bit_in_a_tensor_is_damage(tmp_path: Path, kind: str, is_small: bool) -> None:
    path = written(tmp_path, kind, tensors())
    chance = random.Random(kind)
    for _ in range(20):
        position = chance.randrange(4096, path.stat().st_size - 4096)
        flip(path, position)
        with pytest.raises(BadCheckpointFileError):
            verify(path)
        flip(path, position)
    verify(path)


def test_a_flipped_bit_anywhere_in_a_file_of_ours_is_damage_in_the_words_of_the_seal(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    write_ours(path, {"weight": torch.arange(40.0)})
    for position in range(path.stat().st_size):
        flip(path, position)
        with pytest.raises(BadCheckpointFileError) as caught:
            verify(path)
        if isinstance(caught.value, BrokenFileError):
            assert str(caught.value) == broken_seal(path)
        flip(path, position)


@pytest.mark.parametrize("size", [0, 5, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_bytes_of_any_size_come_back_and_have_the_checksums_of_others(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    (tmp_path / "a").write_bytes(content)
    held = FileBytes((tmp_path / "a").open("rb", buffering=0))
    reader = held.reader()
    assert reader.read() == content and reader.read() == b""
    assert reader.seek(-min(size, 9), os.SEEK_END) == size - min(size, 9) and reader.read(4) == content[-9:][:4]
    for part in (0, 1, size // 2, size):
        assert held.crc32(min(part, size)) == zlib.crc32(content[:part])
    assert held.sha256() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_is_loaded_once(tmp_path: Path, kind: str, is_small: bool) -> None:
    opened = open_verified(written(tmp_path, kind, tensors()))
    spent = [opened.is_spent]
    load_verified(opened)
    spent += [opened.is_spent, not opened.content._chunks]
    assert spent == [False, True, True]
    with pytest.raises(RuntimeError, match="loaded already"):
        load_verified(opened)
    with pytest.raises(RuntimeError, match="open the file again"):
        opened.digest()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_digest_is_that_of_the_content(tmp_path: Path, kind: str, is_small: bool) -> None:
    path, same, other = (tmp_path / name for name in ("first", "same", "other"))
    for folder, seed in ((path, 0), (other, 1)):
        folder.mkdir()
        written(folder, kind, tensors(seed))
    shutil.copytree(path, same)
    first, second, third = (verify(next(folder.iterdir())).digest() for folder in (path, same, other))
    assert first == second != third


def test_no_more_than_a_few_chunks_of_a_large_file_are_in_memory(tmp_path: Path) -> None:
    """The memory of the tensors apart: what is touched for the first time costs more than to read it again."""
    path = tmp_path / "a.pth"
    write_ours(path, {name: torch.zeros(2_000_000) for name in "abcd"})
    opened = open_verified(path)
    left = [len(opened.content._chunks)]
    with opened.content.take() as file:
        torch.load(file, weights_only=True)  # type: ignore[arg-type]
        left.append(len(opened.content._chunks))
    assert path.stat().st_size > 30 * CHUNK_BYTES and left == [file_bytes.CHUNKS_KEPT] * 2


@pytest.mark.parametrize("kind", ["ours", "compressed"])
def test_what_is_left_out_is_not_read_again_and_the_rest_is_as_it_was(
    tmp_path: Path, kind: str, is_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what the rest shares with it: tied tensors have one storage."""
    path, content = tmp_path / "a.pth", tensors()
    nested: Any = {"kept": content, "left": {"moment": torch.randn(3_000_000), "tied": content["large"][5:]}}
    FORMATS[kind][1](path, nested)
    opened = open_verified(path)
    places = places_of({"left"}, opened.content.reader())
    assert list(places.values()) == ([12_000_000] if kind == "ours" else [])
    seen, read_chunk = Counter[int](), FileBytes.read_chunk

    def counted(content: FileBytes, index: int, target: memoryview) -> None:
        seen[index] += 1
        read_chunk(content, index, target)

    monkeypatch.setattr(FileBytes, "read_chunk", counted)
    found = load_verified(opened, {"left"})
    assert list(found) == ["kept"] and differences(found["kept"], content) == []
    first = next(iter(places), 0) // CHUNK_BYTES
    assert kind == "compressed" or not set(seen) & set(range(first + 1, first + 11))


def test_the_facts_are_those_in_the_bytes_that_were_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_epoch_3.pth"
    write_ours(path, tensors())
    opened = verify(path)
    path.unlink()
    assert isinstance(opened.facts, CheckpointRecord) and opened.facts.epoch == 3
    assert opened.record() == opened.facts and opened.facts.path == path
    assert opened.named(Path("b.pth")).path == Path("b.pth") and not opened.is_at(path)


def test_a_file_of_another_program_is_weights_without_a_record(tmp_path: Path) -> None:
    opened = verify(written(tmp_path, "of torch", tensors()))
    assert isinstance(opened.facts, WeightsFile) and opened.record() is None


def test_a_file_is_at_each_of_its_names_until_it_changes(tmp_path: Path) -> None:
    path = written(tmp_path, "ours", tensors())
    opened = verify(path)
    (tmp_path / "link.pth").hardlink_to(path)
    assert opened.is_at(path) and opened.is_at(tmp_path / "link.pth") and not opened.is_at(tmp_path / "missing")
    os.utime(path, ns=(0, 0))
    assert not opened.is_at(path)


def failing_reads(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let reads fail as those of a disk with a bad block do."""
    read, calls = os.preadv, iter(range(10_000))

    def fail(*arguments: Any) -> int:
        if next(calls) >= after:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(*arguments)

    monkeypatch.setattr(os, "preadv", fail)


@pytest.mark.parametrize("after", [0, 3])
def test_a_bad_block_is_damage_in_a_sentence(tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "ours", tensors())
    failing_reads(monkeypatch, after)
    with pytest.raises(UserError, match=r"a\.pth is damaged: it cannot be read \(Input/output error\)"):
        open_verified(path)


def test_a_bad_block_that_shows_only_when_a_large_file_is_loaded_is_a_sentence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_large_to_stay(monkeypatch)
    opened = open_verified(written(tmp_path, "ours", tensors()))
    failing_reads(monkeypatch, after=2)
    with pytest.raises(UserError, match=r"a\.pth is damaged: it cannot be read \(Input/output error\)"):
        load_verified(opened)


def frozen_pair(folder: Path) -> tuple[Path, Path]:
    """A checkpoint that says that it needs frozen weights, and the file with them."""
    reference = FrozenReference.of("ab" * 32, 4)
    checkpoint, frozen = folder / "checkpoint_epoch_3.pth", folder / reference.file
    facts = record(checkpoint.name, 3, frozen=reference).as_dict()
    stored = {"format": 2, "kind": "frozen", "sha256": reference.sha256, "bytes": 4}
    for path, said in ((checkpoint, facts), (frozen, stored)):
        with path.open("w+b") as file:
            write_sealed(file, lambda writer: torch.save(tensors(), writer), said)
    return checkpoint, frozen


def test_frozen_weights_come_along_verified_and_once_for_several_checkpoints(tmp_path: Path) -> None:
    checkpoint, frozen = frozen_pair(tmp_path)
    known: verified_file.KnownFrozen = {}
    first, second = verify(checkpoint, known), verify(checkpoint, known)
    assert isinstance(first.frozen, VerifiedFile) and isinstance(first.frozen.facts, FrozenFile)
    assert first.frozen.path == frozen and second.frozen is first.frozen


def test_damaged_or_missing_frozen_weights_make_a_checkpoint_unusable(tmp_path: Path) -> None:
    checkpoint, frozen = frozen_pair(tmp_path)
    flip(frozen, 5000)
    with pytest.raises(NotUsableError, match=rf"{frozen}, are damaged: its checksum does not match"):
        verify(checkpoint)
    frozen.unlink()
    with pytest.raises(UserError, match=r"epoch_3\.pth cannot be used: the frozen weights .* are missing"):
        open_verified(checkpoint)
