"""--validate_checkpoints: checks every bit of files, and says a line for each as soon as it is checked.

Lines go to standard output and the bar to standard error, where it is gone when the last file is done; without a
terminal the lines are the progress. With --json there are no lines, and one document at the end.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from training.checkpoints.checking import CheckedFile, check_files, size_of
from training.runs.directory import version_number
from training.runs.experiments import other_versions, run_to_look_at
from training.runs.survey import checkpoint_files, other_run_folders
from training.settings.name_template import LAST_CHECKPOINT
from training.settings.requests import ValidateCheckpoints
from training.settings.tasks import BEST_CHECKPOINT, BEST_WEIGHTS
from utils.console import say
from utils.errors import EXIT_FAILURE, UserError
from utils.folders import is_folder, names_in
from utils.json_text import json_text
from utils.regular_files import is_regular
from utils.terminal_text import bytes_text, printable


def run(request: ValidateCheckpoints) -> int:
    """Check a file, a run folder's files or those of the run that is asked for; fail if any is bad."""
    place = request.place if isinstance(request.place, Path) else run_to_look_at(request.place).folder
    groups = _find_files(place)
    if request.as_json:
        return 0 if _report_as_json(groups) else EXIT_FAILURE
    all_good = _report_in_lines(groups)
    for version in other_versions(place):
        say(f"Not checked, another version: {version}")
    return 0 if all_good else EXIT_FAILURE


@dataclass(frozen=True)
class _FileGroup:
    """Checkpoint files of one folder, which may be closed; `title` is a line to print before them, if there is one."""

    title: str
    paths: tuple[Path, ...]
    is_closed: bool = False


def _find_files(place: Path) -> list[_FileGroup]:
    """Return the files to check: `place` itself, or those of a run folder and of its version_N folders.

    Raises UserError where there are none, so that a mistyped path is not taken for good news.
    """
    if not is_folder(place):
        if not os.path.lexists(place):
            raise UserError(f"--validate_checkpoints: {place} does not exist{_runs_to_name(place)}")
        if not is_regular(place) and not place.is_symlink():
            raise UserError(f"--validate_checkpoints: {place} is no regular file: pass a checkpoint or a run folder")
        return [_FileGroup("", (place,))]
    numbered = ((version_number(name), place / name) for name in names_in(place))
    versions = sorted((number, folder) for number, folder in numbered if number and is_folder(folder))
    groups = [_FileGroup("", _checkpoints_in(place))]
    for _, folder in versions:
        try:
            paths = _checkpoints_in(folder)
        except UserError as error:
            groups.append(_FileGroup(str(error), (), is_closed=True))
            continue
        files = "1 file" if len(paths) == 1 else f"{len(paths)} files"
        groups.append(_FileGroup(f"{folder}: an earlier run, moved aside, {files}", paths))
    if not any(group.paths for group in groups):
        raise UserError(f"--validate_checkpoints: there is no checkpoint in {place}{_runs_to_name(place)}")
    return groups


def _checkpoints_in(folder: Path) -> tuple[Path, ...]:
    """Return the checkpoint files of a folder, epoch 2 before epoch 10, second names at the end.

    Links that lead nowhere, folders and pipes of such a name are among them, so that they are named.
    """
    names_in(folder)  # which says so where that cannot be read
    return tuple(sorted(checkpoint_files(folder), key=_natural_order))


def _natural_order(path: Path) -> tuple[bool, list[tuple[str, int]]]:
    is_second_name = path.name.startswith((LAST_CHECKPOINT, BEST_CHECKPOINT, BEST_WEIGHTS))
    return is_second_name, [(text, int(number or 0)) for text, number in re.findall(r"([^0-9]*)([0-9]*)", path.name)]


def _runs_to_name(place: Path) -> str:
    others = other_run_folders(place)
    return f"; runs that have some: {', '.join(map(str, others))}" if others else ""


def _report_in_lines(groups: Sequence[_FileGroup]) -> bool:
    """Check files, print a line for each and a summary, and return whether all of them are good."""
    started_s = time.monotonic()
    checked: list[CheckedFile] = []
    with _bytes_bar(groups, sys.stderr) as bar:
        for group in groups:
            if group.title:
                _say_above(bar, printable(group.title))
            for file in check_files(group.paths):
                checked.append(file)
                bar.update(file.bytes_on_disk)
                _say_above(bar, file.line())
    say(summary_text(checked, time.monotonic() - started_s))
    return _are_good(groups, checked)


def _report_as_json(groups: Sequence[_FileGroup]) -> bool:
    """Check files, print one JSON document (see validation_document), and return whether all of them are good."""
    started_s = time.monotonic()
    checked: list[CheckedFile] = []
    with _bytes_bar(groups, sys.stderr) as bar:
        for group in groups:
            for file in check_files(group.paths):
                checked.append(file)
                bar.update(file.bytes_on_disk)
    say(json_text(validation_document(checked, time.monotonic() - started_s)))
    return _are_good(groups, checked)


def _are_good(groups: Sequence[_FileGroup], checked: Sequence[CheckedFile]) -> bool:
    return all(file.verdict.is_good for file in checked) and not any(group.is_closed for group in groups)


def summary_text(checked: Sequence[CheckedFile], seconds: float) -> str:
    """Return the last line: how many files, how fast, how many of them are bad."""
    bad = [file for file in checked if not file.verdict.is_good]
    size = sum(file.bytes_on_disk for file in checked if not file.note.startswith("the same file"))
    files = "1 file" if len(checked) == 1 else f"{len(checked)} files"
    rate = f", {bytes_text(int(size / seconds))}/s" if seconds > 0 else ""
    return f"{files} checked, {bytes_text(size)} in {seconds:.1f} s{rate}: {f'{len(bad)} BAD' if bad else 'all good'}"


def validation_document(checked: Sequence[CheckedFile], seconds: float) -> dict[str, Any]:
    """Return what --json prints: files (see CheckedFile.as_document), bad (their number) and seconds."""
    return {
        "files": [file.as_document() for file in checked],
        "bad": sum(not file.verdict.is_good for file in checked),
        "seconds": seconds,
    }


class _Bar(Protocol):
    def clear(self) -> object: ...
    def refresh(self) -> object: ...
    def update(self, n: float = 1) -> object: ...


def _say_above(bar: _Bar, line: str) -> None:
    bar.clear()
    say(line)
    bar.refresh()


class _NoBar:
    """What is shown where there is no terminal."""

    def clear(self) -> None: ...
    def refresh(self) -> None: ...
    def update(self, n: float = 1) -> None: ...


@contextmanager
def _bytes_bar(groups: Sequence[_FileGroup], stream: TextIO) -> Iterator[_Bar]:
    """Show how many of all bytes are checked, file by file."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        yield _NoBar()
        return
    from tqdm import tqdm  # noqa: PLC0415 - only a terminal needs it

    total = sum(size_of(path) for group in groups for path in group.paths)
    with tqdm(
        desc="checking",
        total=total,
        unit="B",
        unit_scale=True,
        file=stream,
        leave=False,
        dynamic_ncols=True,
        miniters=1,
    ) as bar:
        yield bar
