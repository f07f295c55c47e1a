"""A command reads a checkpoint once: the bytes that the kernel gave of it, under all of its names, against its size."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from main import main
from tests.conftest import write_corpus
from tests.reading import READS, bytes_read, bytes_read_of, names_of
from tests.tracing import needs_strace, traced_program

MOST = 1.1
SETTINGS = ["--model_type", "lcnn", "--database_path", "corpus", "--batch_size", "4", "--lr", "1e-3"]
SETTINGS += ["--num_workers", "0"]
ELSEWHERE = ["--num_epochs", "1", "--comment", "from_weights"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('1 read(3</a/x.pth>, ""..., 512) = 100', {"/a/x.pth": 100}),
        ('1 pread64(3</a/x.pth>, ""..., 512, 4096) = 512', {"/a/x.pth": 512}),
        ('1 readv(3</a/x.pth>, [{iov_base=""..., iov_len=7}], 1) = 7', {"/a/x.pth": 7}),
        ("1 mmap(NULL, 8192, PROT_READ, MAP_SHARED, 3</a/x.pth>, 0) = 0x7f0000000000", {"/a/x.pth": 8192}),
        ("1 copy_file_range(3</a/x.pth>, NULL, 4</b/y.pth>, NULL, 99, 0) = 99", {"/a/x.pth": 99}),
        ("1 sendfile(4</b/y.pth>, 3</a/x.pth>, [0] => [50], 99) = 50", {"/a/x.pth": 50}),
        ('1 read(3</a/x.pth>, "", 512) = -1 EIO (Input/output error)', {}),
        ("1 mmap(NULL, 8192, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000", {}),
    ],
)
def test_each_way_to_read_a_file_is_counted(line: str, expected: dict[str, int]) -> None:
    """Else the next test would prove nothing."""
    assert bytes_read([line]) == expected
    call, _, end = line.partition(", ")
    cut = [f"{call} <unfinished ...>", "2 read(5</c>, ..., 1) = 1", f"1 <... call resumed>, {end}"]
    assert bytes_read(cut) == expected | {"/c": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and a run of two epochs, whose checkpoints have 3 MB, as small as real ones get."""
    folder = tmp_path_factory.mktemp("read")
    write_corpus(folder / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*SETTINGS, "--num_epochs", "2"]) == 0
    return folder


@needs_strace
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("last_checkpoint.pth", ["--resume", "--model_path", "FILE", "--num_epochs", "3"]),
        ("checkpoint_epoch_1.pth", ["--resume", "--model_path", "FILE"]),
        ("best_checkpoint_eer.pth", ["--eval", "--model_path", "FILE", "--protocols_path", "KEYS"]),
        ("checkpoint_epoch_1.pth", ["--model_path", "FILE", *SETTINGS, *ELSEWHERE]),
    ],
    ids=["resumed elsewhere", "resumed in its folder", "evaluated", "started from"],
)
def test_a_checkpoint_is_read_once(place: Path, tmp_path: Path, name: str, arguments: list[str]) -> None:
    """So are the best weights, a file of their own, which are checked where a run goes on."""
    shutil.copytree(place / "corpus", tmp_path / "corpus")
    shutil.copytree(place / "models", tmp_path / "models", copy_function=_link)
    (run,) = (tmp_path / "models").iterdir()
    file, weights = run / name, run / "best_model_eer.pth"
    names, size = [path.resolve() for path in names_of(file)], file.stat().st_size
    best = weights.stat().st_size
    keys = "corpus/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.dev.trl.txt"
    typed = [{"FILE": str(file), "KEYS": keys}.get(argument, argument) for argument in arguments]
    trace = tmp_path / "trace"
    strace = ["-y", "-s", "0", "-o", str(trace), "-e", f"trace={READS}"]
    code, said = traced_program(strace, tmp_path, *typed)
    assert code == 0, said
    lines = trace.read_text(errors="replace").splitlines()
    assert size <= bytes_read_of(lines, names) <= MOST * size
    assert bytes_read_of(lines, [weights.resolve()]) <= MOST * best


def _link(source: str, target: str) -> None:
    """Keep the names of one file together, which a copy would not."""
    Path(target).hardlink_to(source)
