"""--list_checkpoints: the documented block and a line for all else in the folder, or everything as JSON.

Facts that the documented block lacks stand below it, so that what reads the block finds its lines as they always were.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.checkpoints.record import CheckpointRecord, record_document
from training.runs.experiments import other_experiments, other_versions, run_to_look_at
from training.runs.survey import RunFolder, other_run_folders, survey_folder
from training.settings.requests import ListCheckpoints
from training.settings.tasks import DETECTION
from utils.console import say
from utils.errors import UserError
from utils.folders import is_folder
from utils.json_text import json_text
from utils.terminal_text import RULE, age_text, bytes_text, lines_text


def run(request: ListCheckpoints) -> int:
    """Print the checkpoints of the run that is asked for, and name others."""
    run = _run_at(request.place) if isinstance(request.place, Path) else run_to_look_at(request.place)
    other_runs = [*other_run_folders(run.folder), *other_experiments(run.folder)]
    versions = other_versions(run.folder)
    if request.as_json:
        say(json_text(list_document(run, other_runs, versions)))
    else:
        say(list_text(run, other_runs, versions))
    return 0


def _run_at(path: Path) -> RunFolder:
    if not os.path.lexists(path):
        raise UserError(f"--model_path {path} does not exist: pass a run folder or a file in it")
    return survey_folder(path if is_folder(path) else path.parent)


def list_text(
    run: RunFolder, other_runs: Sequence[Path], other_versions: Sequence[Path] = (), now_s: float | None = None
) -> str:
    """Return what --list_checkpoints prints for a run folder; `other_runs` are named where it holds no checkpoint.

    Ages are told at `now_s`, in seconds since 1970 (default: the time of the call).
    """
    lines = _block(run) if run.all_checkpoints else [f"No checkpoints in {run.folder}."]
    lines += [f"Cannot be used: {file.path}: {file.reason}" for file in run.unusable]
    lines += [f"Weights only: {file.path}{_known(file.record)}" for file in run.weights]
    lines += [f"Frozen weights of these: {file.path} ({bytes_text(file.bytes_on_disk)})" for file in run.frozen]
    moved = [run.folder / f"version_{number}" for number in run.versions]
    lines += [f"Earlier run, moved aside: {folder}" for folder in moved if is_folder(folder)]
    lines += [f"Other version: {folder}" for folder in other_versions]
    if not run.all_checkpoints and other_runs:
        lines += ["Runs that have checkpoints:", *(f"  {folder}" for folder in other_runs)]
    lines += _sizes_and_ages(run, time.time() if now_s is None else now_s)
    return lines_text(lines)


def list_document(run: RunFolder, other_runs: Sequence[Path], other_versions: Sequence[Path] = ()) -> dict[str, Any]:
    """Return what --list_checkpoints --json prints.

    `folder`; `checkpoints` in the order of the list, see record_document; `best_checkpoint` and `last_checkpoint`, the
    paths of those under these names or null; `weights` with path, bytes, epoch and val_eer (percent; null where
    unknown); `frozen`, files of weights that checkpoints refer to, with path, bytes and sha256; `unusable` with path
    and reason; `earlier_runs`, the version_N folders; `other_versions`, folders of the other versions of an experiment;
    `other_runs`, folders of other runs that have checkpoints.
    """
    moved = [run.folder / f"version_{number}" for number in run.versions]
    return {
        "folder": str(run.folder),
        "checkpoints": [record_document(record) for record in run.listed],
        "best_checkpoint": str(run.best.path) if run.best else None,
        "last_checkpoint": str(run.last.path) if run.last else None,
        "weights": [
            {"path": str(file.path), "bytes": file.bytes_on_disk, "epoch": file.epoch, **_deciding(file.record)}
            for file in run.weights
        ],
        "frozen": [{"path": str(file.path), "bytes": file.bytes_on_disk, "sha256": file.sha256} for file in run.frozen],
        "unusable": [{"path": str(file.path), "reason": file.reason} for file in run.unusable],
        "earlier_runs": [str(folder) for folder in moved if is_folder(folder)],
        "other_versions": [str(folder) for folder in other_versions],
        "other_runs": [str(folder) for folder in other_runs],
    }


def _block(run: RunFolder) -> list[str]:
    lines = [RULE, f"📋 Available Checkpoints in {run.folder}", RULE]
    for record in run.listed:
        lines += ["", f"📦 {record.path.name}", *_facts(record)]
    return [*lines, RULE]


def _sizes_and_ages(run: RunFolder, now_s: float) -> list[str]:
    """Return a line for each checkpoint: its size, when it was saved, and whether it is best, last or damaged."""
    rows = [
        (record.path.name, record.bytes_on_disk, _saved_at_s(record), ", ".join(_marks(run, record)))
        for record in run.listed
    ]
    found = [(file.path, _stat(file.path)) for file in run.unusable]
    rows += [(path.name, stat.st_size, stat.st_mtime, "cannot be used") for path, stat in found if stat]
    if not rows:
        return []
    width = max(len(name) for name, *_ in rows)
    lines = [
        f"   {name:{width}}  {bytes_text(size):>9}  {age_text(now_s - at):14}  {mark}" for name, size, at, mark in rows
    ]
    return ["Sizes and ages:", *(line.rstrip() for line in lines)]


def _marks(run: RunFolder, record: CheckpointRecord) -> list[str]:
    named = [("best", run.best), ("last", run.latest)]
    marks = [mark for mark, other in named if other and _is_same(record, other)]
    return [*marks, "by time"] if record.saved_by_time else marks


def _is_same(one: CheckpointRecord, other: CheckpointRecord) -> bool:
    return (one.position, one.run_id) == (other.position, other.run_id)


def _saved_at_s(record: CheckpointRecord) -> float:
    """Return when a checkpoint was saved, by its record: copying a file makes it no younger."""
    if record.saved_at_s is not None:
        return record.saved_at_s
    found = _stat(record.path)
    return found.st_mtime if found else 0.0


def _stat(path: Path) -> os.stat_result | None:
    """Return what the file system says of a file, None where it went while the list was made."""
    try:
        return path.stat()
    except OSError:
        return None


def _facts(record: CheckpointRecord) -> list[str]:
    lines = [f"   Epoch: {record.epoch}"]
    figures, first = record.figures, record.figures.first
    if record.last and record.best:
        last = record.last
        lines += [f"   {figure.title}: {figure.value_text(last[figure.name])}" for figure in figures.listed]
        lines.append(f"   Best {first.short_title}: {first.value_text(record.best[first.name])}")
    else:
        lines.append(f"   {first.title}: no epoch is complete yet")
    if record.batches_done:
        lines.append(f"   Step: {record.step} ({record.progress_in_epoch})")
        if record.validated:
            lines.append(f"   {first.title} at this step: {first.value_text(record.validated[first.name])}")
    return lines


def _known(record: CheckpointRecord | None) -> str:
    if record is None:
        return ""
    first = record.figures.first
    facts = [f"epoch {record.epoch}", *([first.text(record.last[first.name])] if record.last else [])]
    return f" ({', '.join(facts)})"


def _deciding(record: CheckpointRecord | None) -> dict[str, float | None]:
    """Return the figure that decides which epoch is the best; that of a detector, None, where it is not known."""
    name = (record.figures if record else DETECTION.figures).first.name
    return {name: record.last[name] if record and record.last else None}
