"""What must hold after a kill and after the last command: same content as the undisturbed run's, and nothing left."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import torch
import yaml

from tests.comparing import bits, differences, log_rows
from tests.killing import files_in, temporaries
from tests.loading import load_payload
from training.checkpoints.examined import examine
from training.checkpoints.record import CheckpointRecord, Kind
from training.runs.directory import MOVE_JOURNAL_NAME
from training.runs.survey import survey_folder
from training.settings.name_template import CHECKPOINT_SUFFIXES, FROZEN

_OF_OPTIMIZER = "optimizer_state_dict"
SECONDS_TO_LEAVE = 30.0
FREE = ("num_workers", "sync_save")  # what the kills draw anew at each start
_STOPPED_IN = re.compile(r"saved in (\S+)$", re.MULTILINE)


def progress(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return the position of the latest checkpoint of each run, by its folder."""
    runs = [*(folder / "models").glob("*/"), *(folder / "outputs").glob("*/checkpoints/*/")]
    latest = {run: survey_folder(run).latest for run in runs}
    return {run: record.position for run, record in latest.items() if record}


def step_checkpoints(folder: Path) -> set[str]:
    """Return the names of the checkpoints in `folder` that lie within an epoch."""
    found = ((path, examine(path)) for path in _checkpoints(folder))
    return {
        str(path.relative_to(folder))
        for path, facts in found
        if isinstance(facts, CheckpointRecord) and facts.kind is Kind.STEP
    }


def contents(folder: Path) -> set[str]:
    """Return a digest of every checkpoint, whatever it is called."""
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in _checkpoints(folder)}


def torn_pairs(folder: Path) -> dict[str, set[int]]:
    """Return the checkpoints whose optimizers have not all made the steps that their record says, and what they made.

    There are none: what trains networks in turn saves them together or not at all.
    """
    found = {}
    for path in _checkpoints(folder):
        record = examine(path)
        if isinstance(record, CheckpointRecord):
            states = [held["state"] for name, held in load_payload(path).items() if name.endswith(_OF_OPTIMIZER)]
            steps = {max(int(of_one["step"]) for of_one in state.values()) for state in states if state}
            if steps - {record.step}:
                found[path.name] = steps
    return found


def saved_when_stopped(said: str) -> list[str]:
    """Return the files that a process named as saved when it was stopped."""
    return _STOPPED_IN.findall(said)


def processes_in(folder: Path) -> dict[int, str]:
    """Return the processes that work in `folder`, by number: those that were started there, and theirs."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                words = (process / "cmdline").read_bytes().split(b"\0")[:6]
                found[int(process.name)] = b" ".join(words).decode(errors="replace")
        except OSError:  # it ended, or is another user's
            continue
    return found


def end_processes_in(folder: Path) -> None:
    """End what works in `folder`, and return when it is gone."""
    while left := processes_in(folder):
        for number in left:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.05)


def assert_nothing_is_left(folder: Path) -> None:
    """Raise AssertionError where temporaries, journals, locks that are held or processes are left in `folder`."""
    end_s = time.monotonic() + SECONDS_TO_LEAVE
    while (left := processes_in(folder)) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not left, f"processes are left {SECONDS_TO_LEAVE:.0f} s after the end: {left}"
    assert not temporaries(folder), f"temporaries are left: {temporaries(folder)}"
    assert not (found := list(folder.rglob(MOVE_JOURNAL_NAME))), f"journals are left: {found}"
    assert not (held := [path for path in folder.rglob("*.lock") if _is_held(path)]), f"locks are held: {held}"


def assert_same_end(folder: Path, undisturbed: Path, stopped_in: set[str]) -> None:
    """Raise AssertionError where a file is missing, has other content, or is one that the undisturbed run has not.

    A step checkpoint that SIGTERM asked for (`stopped_in`) may stay, as retention has it.
    """
    ours, theirs = (set(_compared(place)) for place in (folder, undisturbed))
    assert not theirs - ours, f"missing: {sorted(theirs - ours)}"
    surplus = ours - theirs - stopped_in
    assert not surplus, f"should not be there: {sorted(surplus)}"
    for name in sorted(theirs):
        assert not (found := _differences(folder / name, undisturbed / name)), f"{name}: {found[:3]}"
    curves, wanted = _curves(folder), _curves(undisturbed)
    assert curves == wanted, f"curves: {curves ^ wanted}"


def _compared(folder: Path) -> Iterator[str]:
    """Yield the names of the files whose content must not depend on interruptions, or which must be there."""
    for path in files_in(folder):
        name = str(path.relative_to(folder))
        is_other = name == "said.txt" or path.name.endswith(".lock") or "tfevents" in name or "/wandb/" in name
        if path.is_file() and not is_other:
            yield name


def _checkpoints(folder: Path) -> list[Path]:
    return [
        p for p in files_in(folder) if p.suffix in CHECKPOINT_SUFFIXES and not p.name.startswith(".") and p.is_file()
    ]


def _differences(one: Path, other: Path) -> list[str]:
    compare = next((how for pattern, how in _COMPARED_BY.items() if one.match(pattern)), Path.read_bytes)
    return differences(compare(one), compare(other), one.name)


def _weights(path: Path) -> dict[str, Any]:
    """Return what a file of weights holds, but the settings, of which some are free to change."""
    held = torch.load(path, weights_only=True)
    return {name: value for name, value in held.items() if name not in ("args", "config")}


def _safetensors(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, "pt") as file:
        names = sorted(file.keys())
        return {name: file.get_tensor(name) for name in names} | {"": sorted(file.metadata().items())}


def _torchscript(path: Path) -> dict[str, Any]:
    """Return the tensors and the code, without the numbers that a process gives to types that it met before."""
    detector = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return {**detector.state_dict(), "code": re.sub(r"___torch_mangle_\d+\.", "", detector.code)}


def _settings(path: Path) -> dict[str, Any]:
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: value for name, value in settings.items() if name not in FREE}


def _whole_page(path: Path) -> bool:
    return path.read_text(encoding="utf-8").rstrip().endswith("</html>")


# The first pattern that fits says what of a file must be the same: by default, every byte.
_COMPARED_BY: dict[str, Callable[[Path], Any]] = {
    "training_log.csv": lambda path: log_rows(path.parent),
    "config.yaml": _settings,
    "report.html": _whole_page,
    "*.json": lambda path: list(json.loads(path.read_text(encoding="utf-8"))),
    "best_model*": _weights,
    f"{FROZEN}*": _weights,
    "*.ts": _torchscript,
    "*.safetensors": _safetensors,  # the library writes its header in any order
    **dict.fromkeys((f"*{suffix}" for suffix in CHECKPOINT_SUFFIXES), bits),
}


def _is_held(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _curves(folder: Path) -> set[tuple[str, str, int, float]]:
    """Return what TensorBoard shows in each folder of logs, times left out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    points = set()
    for place in {path.parent for path in folder.rglob("*tfevents*")}:
        board = EventAccumulator(str(place))
        board.Reload()
        where = str(place.relative_to(folder))
        for tag in (tag for tag in board.Tags()["scalars"] if not tag.startswith("time/")):
            points |= {(where, tag, event.step, event.value) for event in board.Scalars(tag)}
    return points
