"""config.yaml beside the checkpoints of a run: the settings it trains with, as a file that --config takes.

Training again from it, `python main.py --config models/RUN/config.yaml`, reproduces the run, or its first lines say why
not: the settings were changed in the middle, and it holds the last ones. It is written when a run starts, and when one
goes on with other settings, or another past, than the file has.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoints.history import History
from training.runs.reproduction import how_to_repeat, what_differs
from training.settings.options import SETTINGS, Options
from training.settings.requests import Train
from training.settings.yaml_settings import MOST_BYTES, read_settings_file
from utils.atomic_files import atomic_write
from utils.errors import UserError
from utils.numerics import NUMERICS
from utils.regular_files import read_regular
from utils.terminal_text import printable

_REPRODUCES = "# Every setting of this run: training again with --config and this file reproduces it."
_DOES_NOT = "# The settings at the end of this run: training again with --config and this file does not reproduce it."
_BECAUSE = "#   "
_TO_REPEAT = "# To repeat the run: "


@dataclass(frozen=True)
class RunConfig:
    """What a run's config.yaml will hold; `copy_of` is the file of --config that these bytes are, if they are one's."""

    content: bytes
    copy_of: Path | None = None


def run_config(command: Train, options: Options) -> RunConfig:
    """Return the config of a run with these settings: the file of --config where it alone gives them, else a new one.

    A file that says `resume_from` gives more than settings: training again from a copy would not begin anew.
    """
    file = command.config
    if file and not command.typed and not file.resume_from and Options(**file.settings) == options:
        return RunConfig(file.content, file.path)
    typed = printable(shlex.join(["python", "main.py", *command.arguments]))
    return RunConfig(settings_text(options, f"Written by: {typed}").encode())


def settings_text(options: Options, origin: str) -> str:
    """Return every setting as YAML, group by group, under a comment that says where it comes from."""
    lines = [
        f"# {origin}",
        _REPRODUCES,
        f"# Computed with numerics {NUMERICS}.",
    ]
    for group, names in itertools.groupby(options.as_dict(), key=lambda name: SETTINGS[name].group):
        lines += ["", f"# {group}", *(f"{name}: {_yaml(getattr(options, name))}" for name in names)]
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    """Return a value on one line; text always in quotes, and a float such that YAML 1.1 reads one: 1.0e-06."""
    import yaml  # noqa: PLC0415  (only runs that train pay for it)

    style = '"' if isinstance(value, str) else None
    text: str = yaml.safe_dump(value, default_style=style, default_flow_style=True, width=float("inf"))
    return text.removesuffix("...\n").rstrip("\n")


def write_config(path: Path, config: RunConfig, options: Options, history: History | None = None) -> None:
    """Write config.yaml, whole or not at all, unless the one that is there says the same; raises OSError.

    A copy of a user's file stays that, byte for byte, where it reproduces the run.
    """
    differing = what_differs(history, options) if history else []
    told = b""
    if history and differing:
        told = reproduction_text(differing, how_to_repeat(history, options)).encode()
    if _settings_in(path) == options and _told_in(path) == told:
        return
    content = config.content.replace(f"{_REPRODUCES}\n".encode(), b"") if told else config.content
    with atomic_write(path) as file:
        file.write(told + content)


def reproduction_text(differing: Sequence[str], how: str) -> str:
    """Return the lines that say why a file does not reproduce its run; texts in them cannot end a comment."""
    reasons = "".join(f"{_BECAUSE}{printable(reason)}.\n" for reason in differing)
    return f"{_DOES_NOT}\n{reasons}{_TO_REPEAT}{printable(how)}.\n"


def _told_in(path: Path) -> bytes:
    """Return the lines of a run's config.yaml that say why it does not reproduce the run; nothing where none do."""
    content = read_regular(path, MOST_BYTES)
    if not content.startswith(_DOES_NOT.encode()):
        return b""
    head, mark, rest = content.partition(_TO_REPEAT.encode())
    return head + mark + rest.partition(b"\n")[0] + b"\n"


def _settings_in(path: Path) -> Options | None:
    """Return the settings that a run's config.yaml gives; None where there is none that can be read."""
    try:
        return Options(**read_settings_file(path).settings)
    except UserError:
        return None
