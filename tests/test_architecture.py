"""The shape of the program, as facts about its source: who imports whom, who may write, what is never written."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
LAYERS = ("main", "training", "models", "utils")  # each may import those after it, and itself
SOURCES = sorted(
    [REPOSITORY / "main.py", *(path for layer in LAYERS[1:] for path in (REPOSITORY / layer).rglob("*.py"))]
)
# What --help, usage errors, listing and planning import: they must be instant.
WITHOUT_TORCH = (
    "main",
    "training.announcements",
    "training.changes",
    "training.checkpoints.compression",
    "training.checkpoints.names",
    "training.checkpoints.record",
    "training.checkpoints.retention",
    "training.checkpoints.sealed_file",
    "training.command_line",
    "training.facts",
    "training.runs.listing",
    "training.options",
    "training.plan",
    "training.runs.config_file",
    "training.runs.directory",
    "training.runs.experiments",
    "training.runs.survey",
    "training.yaml_settings",
    "utils.atomic_files",
)
SLOW = ("torch", "numpy", "transformers", "matplotlib", "sklearn", "tensorboard", "soundfile", "tqdm", "wandb")

# Says what a library raised that talks to a network and may raise anything: it must never end a training.
FACING_W_AND_B = ("training.logs.wandb_run",)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def imported_by(path: Path) -> set[str]:
    """Return the modules that a file names in its imports, those inside functions too."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def calls_in(path: Path) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in nodes(path) if isinstance(node, ast.Call)]


def test_there_are_sources_to_look_at() -> None:
    assert len(SOURCES) > 40
    assert {module_name(path).split(".")[0] for path in SOURCES} == set(LAYERS)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    layer = module_name(path).split(".")[0]
    forbidden = set(LAYERS[: LAYERS.index(layer)]) | {"tests", "benchmarks"}
    assert {name for name in imported_by(path) if name.split(".")[0] in forbidden} == set()


def test_only_the_flags_import_argparse() -> None:
    users = {module_name(path) for path in SOURCES if "argparse" in imported_by(path)}
    assert users == {"training.flags", "training.setting_flags"}


def test_only_the_store_calls_torch_save() -> None:
    users = {module_name(path) for path in SOURCES if "torch.save" in {name for name, _ in calls_in(path)}}
    users |= {module_name(path) for path in SOURCES if "torch.save" in imported_by(path)}
    assert users == {"training.checkpoints.store"}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_failure_is_swallowed_and_no_loading_is_lenient(path: Path) -> None:
    """No bare except, no `except Exception`, no strict=False, no weights_only=False."""
    for node in nodes(path):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
            last = node.body[-1]
            reraises = isinstance(last, ast.Raise) and last.exc is None
            caught = {ast.unparse(part) for part in ast.walk(node.type) if isinstance(part, ast.Name)}
            if module_name(path) in FACING_W_AND_B:
                caught -= {"Exception"}
            broad = {"Exception"} if reraises else {"Exception", "BaseException"}
            assert not caught & broad, f"catches {caught & broad} in line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg in ("strict", "weights_only"):
            assert ast.unparse(node.value) == "True", f"{node.arg}={ast.unparse(node.value)}, line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_every_torch_load_says_weights_only(path: Path) -> None:
    for name, call in calls_in(path):
        if name == "torch.load":
            assert "weights_only" in {keyword.arg for keyword in call.keywords}, f"line {call.lineno}"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name != "__init__.py"], ids=module_name)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    """In a sentence: the first line of its docstring."""
    first_line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    assert len(first_line.split()) >= 5, f"{path} has no docstring that says anything: {first_line!r}"


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_must_be_instant_imports_no_torch(module: str) -> None:
    """Nor anything else that takes a noticeable time, through any other module."""
    code = f"import sys, {module}; print([name for name in {SLOW!r} if name in sys.modules])"
    asked = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip() == "[]"
