"""What a file of weights is: decided once, by what is in it."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from tests.test_architecture import SOURCES, module_name
from training.checkpoints.file_format import BadCheckpointFileError, FileFormat, NotUsableError, format_of
from training.checkpoints.sealed_file import broken_seal, read_record, write_sealed
from training.checkpoints.tensor_table import read_tensor_table
from training.checkpoints.verified_file import open_verified
from training.checkpoints.verified_load import load_verified

WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3)}


def sealed() -> bytes:
    file = io.BytesIO()
    write_sealed(file, lambda target: torch.save(WEIGHTS, target), {"no": "record"})
    return file.getvalue()


def of_torch(**how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(WEIGHTS, file, **how)
    return file.getvalue()


KINDS: dict[FileFormat, Callable[[], bytes]] = {
    FileFormat.SEALED: sealed,
    FileFormat.ZIP: of_torch,
    FileFormat.OLD_TORCH: lambda: of_torch(_use_new_zipfile_serialization=False),
    FileFormat.SAFETENSORS: lambda: safetensors_bytes(WEIGHTS),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".SAFETENSORS", ".bin", ""])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_file_is_what_is_in_it_whatever_its_name(kind: FileFormat, suffix: str) -> None:
    assert format_of(io.BytesIO(KINDS[kind]()), suffix) is kind


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 3")
@pytest.mark.parametrize("protocol", [2, 3])
def test_the_format_before_torch_1_6_is_known_in_the_protocols_that_torch_reads(tmp_path: Path, protocol: int) -> None:
    (path := tmp_path / "weights.pth").write_bytes(
        of_torch(_use_new_zipfile_serialization=False, pickle_protocol=protocol)
    )
    assert read_record(path) is None
    assert [entry.name for entry in read_tensor_table(path).tensors] == ["layer.weight"]
    assert torch.equal(load_verified(open_verified(path))["layer.weight"], WEIGHTS["layer.weight"])


@pytest.mark.parametrize("protocol", [4, 5])
def test_in_the_others_it_is_refused_before_torch_would(tmp_path: Path, protocol: int) -> None:
    (path := tmp_path / "weights.pth").write_bytes(
        of_torch(_use_new_zipfile_serialization=False, pickle_protocol=protocol)
    )
    for read in (read_record, read_tensor_table):
        with pytest.raises(NotUsableError, match="it is a plain pickle"):
            read(path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.SAFETENSORS", "weights.bin"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not FileFormat.SEALED], ids=lambda kind: kind.name)
def test_all_that_read_a_file_take_it_for_the_same(tmp_path: Path, kind: FileFormat, name: str) -> None:
    """Listing, checking, the table of tensors, verifying and loading; files under another format's name included."""
    path = tmp_path / name
    path.write_bytes(KINDS[kind]())
    assert read_record(path) is None
    assert broken_seal(path) is None
    table = read_tensor_table(path)
    assert [(entry.name, entry.shape) for entry in table.tensors] == [("layer.weight", (2, 3))]
    assert table.has_checksums == kind.is_zip
    opened = open_verified(path)
    assert opened.format is kind
    assert torch.equal(load_verified(opened)["layer.weight"], WEIGHTS["layer.weight"])


def document() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("slides/chapter.xml", "text")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "suffix", "error", "complaint"),
    [
        (b"", ".pth", BadCheckpointFileError, "it is empty"),
        (b"", ".safetensors", BadCheckpointFileError, "it is empty"),
        (bytes(100), ".pth", BadCheckpointFileError, "it is not a checkpoint file"),
        (b"\x7fELF" + bytes(60), ".pth", BadCheckpointFileError, "it is not a checkpoint file"),
        (of_torch()[:-30], ".pth", BadCheckpointFileError, "cut short or hit by a bad block"),
        (pickle.dumps(WEIGHTS), ".pth", NotUsableError, "it is a plain pickle"),
        (gzip.compress(of_torch()), ".pth", NotUsableError, "compressed with gzip"),
    ],
    ids=["empty", "empty safetensors", "zeros", "a program", "half of one", "a plain pickle", "in gzip"],
)
def test_what_is_none_of_them_is_named(
    content: bytes, suffix: str, error: type[BadCheckpointFileError], complaint: str
) -> None:
    with pytest.raises(BadCheckpointFileError, match=complaint) as raised:
        format_of(io.BytesIO(content), suffix)
    assert type(raised.value) is error


def test_a_document_in_a_zip_file_is_a_zip_file_and_is_refused_for_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "slides.pth"
    path.write_bytes(document())
    assert format_of(io.BytesIO(document()), ".pth") is FileFormat.ZIP
    for read in (read_record, read_tensor_table):
        with pytest.raises(BadCheckpointFileError, match="not one that torch wrote"):
            read(path)


def test_a_safetensors_file_that_is_cut_is_told_by_its_start_or_by_its_name(tmp_path: Path) -> None:
    whole = KINDS[FileFormat.SAFETENSORS]()
    for cut, name in ((whole[:-4], "weights.bin"), (whole[:-4], "a.safetensors"), (whole[:20], "b.safetensors")):
        (path := tmp_path / name).write_bytes(cut)
        with pytest.raises(BadCheckpointFileError, match="cut short"):
            read_record(path)


def test_no_other_file_looks_at_first_bytes_or_suffixes_to_find_out() -> None:
    """`is_zipfile` and the suffix of safetensors are the judge's."""
    judges = {"training.checkpoints.file_format"}
    for words in ("is_zipfile", ".suffix.lower() == SAFETENSORS", "SAFETENSORS_SUFFIX"):
        users = {module_name(path) for path in SOURCES if words in path.read_text(encoding="utf-8")}
        assert users <= judges, words
