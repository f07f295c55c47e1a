"""One opener reads what lies on a disk: nothing in the source reads a path in another way, with these exceptions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_architecture import SOURCES, module_name

# Calls that open a path, by the name of the function or method alone.
OPENERS = {"open", "FileIO", "read_text", "read_bytes", "fromfile", "genfromtxt", "loadtxt", "memmap", "getlines"}
# These take a path, too, and are given an open file: their first argument is checked to be one of these names.
GIVEN_A_FILE = {"np.load", "torch.load", "Image.open", "zipfile.ZipFile", "yaml.load", "safe_open", "torch.jit.load"}
FILES = {
    "file",
    "old_file",
    "new_file",
    "writer",
    "made",
    "limited",
    "end",
    "cast(IO[bytes], file)",
    "cast(IO[bytes], limited)",
}
ALLOWED = {
    # The opener itself, and what opens no file that somebody else could have put there.
    ("utils.regular_files", "os.open"): "the opener",
    ("utils.regular_files", "io.FileIO"): "of a descriptor that it has opened",
    ("utils.atomic_files", "temporary.open"): "made by it, under a name that is nobody's",
    ("utils.atomic_files", "os.open"): "a folder, to sync it",
    ("utils.console", "open"): "/dev/null",
    ("utils.console", "os.open"): "/dev/null",
    ("utils.machine", "cpuinfo.read_text"): "/proc",
    ("training.data.workers", "badness.read_text"): "/proc",
    ("utils.meeting", "Path('/proc/sys/kernel/random/boot_id').read_text"): "/proc",
    ("utils.meeting", "Path(f'/proc/{pid}/stat').read_text"): "/proc",
    ("utils.version", "path.read_bytes"): "parts of the program",
    ("utils.free_memory", "limit.read_text"): "/sys",
    ("utils.free_memory", "(cgroup / 'memory.current').read_text"): "/sys",
    ("utils.free_memory", "path.read_text"): "/proc and /sys",
    ("training.reports.tensorboard_file", "self._path.open"): "for writing, under a name that no other process has",
    ("training.reports.page.rendering", "(_HERE / 'report.css').read_text"): "a part of the program",
    ("training.reports.page.rendering", "(_HERE / 'report.html.j2').read_text"): "a part of the program",
    ("training.checkpoints.torch_archive", "zipfile.ZipFile"): "in memory",
    ("training.saving.compression", "old.open"): "an entry of an archive",
    ("training.saving.compression", "new.open"): "an entry of an archive",
    ("training.export.torchscript_file", "torch.jit.load"): "the file that was written a moment ago",
    ("training.export.weights_file", "safe_open"): "the file that was written a moment ago, checked before it is named",
}
# Decoding audio, and tables of text, have a reader of their own.
ROOMS_WITH_A_READER = ("utils.audio.", "utils.corpora.", "utils.text_tables")


def readings(path: Path) -> Iterator[tuple[str, int]]:
    """Yield how a file opens or reads paths, and in which line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in GIVEN_A_FILE:
            if not node.args or ast.unparse(node.args[0]) not in FILES:
                yield name, node.lineno
        elif name.rpartition(".")[2] in OPENERS:
            yield name, node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_path_is_read_by_the_one_opener(path: Path) -> None:
    module = module_name(path)
    if module.startswith(ROOMS_WITH_A_READER):
        pytest.skip("has a reader of its own")
    found = [f"{name}, line {line}" for name, line in readings(path) if (module, name) not in ALLOWED]
    assert not found, f"{module}: {'; '.join(found)}: use utils.regular_files"


def test_every_exception_is_one() -> None:
    by_module = {module_name(path): {name for name, _ in readings(path)} for path in SOURCES}
    assert not [(module, name) for module, name in ALLOWED if name not in by_module.get(module, set())]
