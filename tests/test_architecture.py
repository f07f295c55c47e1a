"""The shape of the program, as facts about its source: who imports whom, who may write, what is never written."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
# The law: every file lies in one of these rooms, from the ground up, and imports only its own room and those above it.
ROOMS = (
    "utils",
    "utils.audio",
    "utils.corpora",
    "utils.scores",
    "models",
    "training.settings",
    "training.checkpoints",
    "training.data",
    "training.runs",
    "training.state",
    "training.planning",
    "training.tasks",
    "training.saving",
    "training.reports",
    "training.evaluation",
    "training.loop",
    "training.export",
    "training.spoofs",
    "training.commands",
    "main",
)
# The one public import, `from training.inference import load_detector`: the only file beside the rooms of training/.
PUBLIC = "training.inference"
SOURCES = sorted(
    [
        REPOSITORY / "main.py",
        *(REPOSITORY / "models").glob("*.py"),
        *(path for layer in ("training", "utils") for path in (REPOSITORY / layer).rglob("*.py")),
    ]
)
# What --help, usage errors, listing and planning import: they must be instant.
WITHOUT_TORCH = (
    "main",
    "training.planning.announcements",
    "training.settings.changes",
    "training.saving.compression",
    "training.runs.names",
    "training.checkpoints.examined",
    "training.checkpoints.record",
    "training.runs.retention",
    "training.checkpoints.sealed_file",
    "training.settings.command_line",
    "training.planning.facts",
    "training.commands.list_checkpoints",
    "training.commands.train",
    "training.settings.options",
    "training.planning.decide",
    "training.planning.plan",
    "training.runs.config_file",
    "training.runs.directory",
    "training.runs.experiments",
    "training.runs.survey",
    "training.settings.yaml_settings",
    "utils.atomic_files",
)
SLOW = ("torch", "numpy", "transformers", "matplotlib", "sklearn", "tensorboard", "soundfile", "tqdm", "wandb")

# Says what a library raised that talks to a network and may raise anything: it must never end a training.
FACING_W_AND_B = ("training.reports.wandb_run",)
# Raise in another thread or process, where the result is asked for, whatever was raised while it was made.
CARRYING_OVER = ("utils.waiting", "training.data.workers")


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


def room_of(module: str) -> str | None:
    """Return the room that a module lies in, the innermost of those that fit; None for none."""
    fitting = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(fitting, key=len, default=None)


def modules_imported_by(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, `from package import module` included."""
    ours = {module_name(source).removesuffix(".__init__") for source in SOURCES}
    return imported_by(path) & ours


def test_there_are_sources_to_look_at() -> None:
    assert len(SOURCES) > 40
    assert {room_of(module_name(path)) for path in SOURCES} == {*ROOMS, None}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_every_file_is_in_a_room_and_imports_only_what_lies_above_it(path: Path) -> None:
    module = module_name(path)
    if module in (PUBLIC, "training.__init__"):
        return
    room = room_of(module)
    assert room is not None, f"{module} lies in no room: move it into one of {', '.join(ROOMS)}"
    above = ROOMS[: ROOMS.index(room) + 1]
    packages = {"utils", "training"}  # what `from training.data import check` names beside the module itself
    against = {name for name in modules_imported_by(path) - packages if room_of(name) not in above}
    assert against == set(), f"{module} is in {room} and must not import these"
    assert {name for name in imported_by(path) if name.split(".")[0] in ("tests", "benchmarks")} == set()


def test_no_two_files_import_each_other_by_any_way_round() -> None:
    """Inside a room too: what is above what must have an answer."""
    graph = {module_name(path): {f"{n}" for n in modules_imported_by(path)} - {module_name(path)} for path in SOURCES}
    packages = {name.removesuffix(".__init__") for name in graph if name.endswith(".__init__")}
    graph = {name: {to for to in reached if to not in packages} for name, reached in graph.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_only_the_public_import_lies_beside_the_rooms() -> None:
    beside = {module_name(path) for path in (REPOSITORY / "training").glob("*.py")}
    assert beside == {"training.__init__", PUBLIC}


def test_contributing_has_a_line_for_every_room() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = [f"`{room.replace('.', '/')}/`" for room in ROOMS if room != "main"]
    assert [folder for folder in folders if f"| {folder}" not in text] == []


def test_only_the_flags_and_their_parser_import_argparse() -> None:
    users = {module_name(path) for path in SOURCES if "argparse" in imported_by(path)}
    assert users == {"training.settings.flags", "training.settings.parser", "training.settings.setting_flags"}


def test_only_the_store_has_torch_save_called() -> None:
    users = {module_name(path) for path in SOURCES if "torch.save" in {name for name, _ in calls_in(path)}}
    users |= {module_name(path) for path in SOURCES if "torch.save" in imported_by(path)}
    assert users == {"training.checkpoints.torch_archive"}
    users = {module_name(path) for path in SOURCES if "training.checkpoints.torch_archive" in imported_by(path)}
    assert users == {"training.saving.store"}


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
            if module_name(path) in CARRYING_OVER:
                caught -= {"Exception", "BaseException"}
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
