"""Tells how --validate_checkpoints goes on: a line per file as soon as it is checked, and a bar on a terminal.

Lines go to standard output and the bar to standard error, where it is gone when the last file is done; without a
terminal the lines are the progress. With --json there are no lines, and one document at the end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TextIO

from training.checkpoints.checking import CheckedFile, check_files, size_of
from training.commands.validation import FileGroup, summary_text, validation_document
from utils.console import say
from utils.json_text import json_text
from utils.terminal_text import printable


class _Bar(Protocol):
    def clear(self) -> object: ...
    def refresh(self) -> object: ...
    def update(self, n: float = 1) -> object: ...


def report_in_lines(groups: Sequence[FileGroup]) -> bool:
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
    return all(file.verdict.is_good for file in checked)


def report_as_json(groups: Sequence[FileGroup]) -> bool:
    """Check files, print one JSON document (see validation_document), and return whether all of them are good."""
    started_s = time.monotonic()
    checked: list[CheckedFile] = []
    with _bytes_bar(groups, sys.stderr) as bar:
        for group in groups:
            for file in check_files(group.paths):
                checked.append(file)
                bar.update(file.bytes_on_disk)
    say(json_text(validation_document(checked, time.monotonic() - started_s)))
    return all(file.verdict.is_good for file in checked)


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
def _bytes_bar(groups: Sequence[FileGroup], stream: TextIO) -> Iterator[_Bar]:
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
