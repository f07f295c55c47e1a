"""Archives whose checksums are filled in on their way: those of torch, and torch is left as it was."""

from __future__ import annotations

import io
import random
import re
import shutil
import subprocess
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from training.checkpoints import crc32 as crc32_module
from training.checkpoints import torch_archive
from training.checkpoints.crc32 import combined, crc32
from training.checkpoints.sealed_file import SequentialWriter, broken_seal, write_sealed
from training.checkpoints.torch_archive import save_archive


def odd(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


CONTENTS: dict[str, Any] = {
    "tensors of several sizes": {"a": torch.arange(300_000.0), "b": torch.ones(3), "text": "x" * 2_000_000},
    "an empty tensor": {"none": torch.empty(0), "one": torch.ones(1)},
    "nothing": {},
    "a tensor like a directory": {"a": odd(b"PK\1\2" * 4), "b": odd(b"PK\3\4" + bytes(26))},
    "a tensor like a descriptor": {"a": odd(b"PK\7\x08" + bytes(12)), "b": odd(b"PK\7\x08" + bytes(20))},
    "a tensor like its own descriptor": {"a": odd(b"PK\7\x08" + bytes(4) + (16).to_bytes(4, "little") * 2)},
}


def saved(value: Any, path: Path) -> Path:
    with path.open("x+b") as file:
        write_sealed(file, lambda writer: save_archive(value, writer), {"epoch": 3})
    return path


def entries(path: Path) -> dict[str, tuple[int, int, int]]:
    with zipfile.ZipFile(path) as archive:
        found = {e.filename.split("/", 1)[1]: (e.header_offset, e.file_size, e.CRC) for e in archive.infolist()}
    return {name: facts for name, facts in found.items() if name not in (".data/serialization_id", "record.json")}


@pytest.mark.parametrize("name", CONTENTS)
def test_an_archive_is_that_of_torch_and_every_reader_takes_it(tmp_path: Path, name: str) -> None:
    ours, theirs = saved(CONTENTS[name], tmp_path / "archive.pth"), tmp_path / "theirs"
    with theirs.open("wb") as file:
        torch.save(CONTENTS[name], file)
    assert entries(ours) == entries(theirs)
    assert broken_seal(ours) is None
    with zipfile.ZipFile(ours) as archive:
        assert archive.testzip() is None
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tq", ours], check=True, capture_output=True)
    loaded = torch.load(ours, weights_only=True)
    assert str(loaded) == str(CONTENTS[name]) and list(loaded) == list(CONTENTS[name])


def test_torch_lays_archives_out_as_this_program_expects() -> None:
    """If this fails with a new torch, saving takes longer, and nothing is wrong with the files."""
    assert torch_archive._can_be_filled_in()


def test_where_torch_lays_them_out_in_another_way_it_fills_in_its_checksums_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_archive._Filling, "_is_descriptor", lambda *_: False)
    torch_archive._can_be_filled_in.cache_clear()
    try:
        path = saved({"a": torch.ones(100)}, tmp_path / "archive.pth")
    finally:
        torch_archive._can_be_filled_in.cache_clear()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and broken_seal(path) is None


class _Full:
    def write(self, data: Any, /) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None: ...


def test_torch_makes_checksums_again_afterwards_also_where_the_disk_was_full() -> None:
    torch_archive._can_be_filled_in()
    with pytest.raises((OSError, RuntimeError)):
        save_archive({"a": torch.ones(100)}, SequentialWriter(_Full()))
    assert torch.serialization.get_crc32_options()
    other = io.BytesIO()
    torch.save({"a": torch.ones(3)}, other)
    with zipfile.ZipFile(other) as archive:
        assert archive.testzip() is None


def test_what_the_loop_saves_meanwhile_by_torch_is_whole() -> None:
    """A save of ours holds torch's checksums off in its own thread only."""
    begun, over, contents = threading.Event(), threading.Event(), io.BytesIO()

    class Waiting(_Full):
        def write(self, data: Any, /) -> int:
            begun.set()
            over.wait(60)
            return len(data)

    thread = threading.Thread(target=lambda: save_archive({"a": torch.ones(9)}, SequentialWriter(Waiting())))
    thread.start()
    begun.wait(60)
    torch.save({"a": torch.ones(3)}, contents)
    over.set()
    thread.join()
    with zipfile.ZipFile(contents) as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0), (1, 1), (100_000, 3), (3, 1 << 20)])
def test_checksums_of_parts_make_that_of_the_whole(sizes: tuple[int, int]) -> None:
    first, second = (random.Random(size).randbytes(size) for size in sizes)
    assert combined(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)
    assert crc32(second, crc32(first)) == zlib.crc32(first + second)


def test_zlib_does_where_isal_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(crc32_module.__file__).read_text()
    found: dict[str, Any] = {}
    exec(re.sub("from isal.isal_zlib import", "from no_isal_here import", source), {"__name__": "x"}, found)
    assert found["crc32"] is zlib.crc32
