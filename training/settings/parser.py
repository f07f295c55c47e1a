"""The parser: refuses in one sentence, asks for the nearest known flag, and lays out the help."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from training.settings.nearest_name import nearest_name
from utils.console import say
from utils.errors import EXIT_USAGE, UserError

_HELP_COLUMNS = 120
_DASHES = "-\N{EN DASH}\N{EM DASH}"


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps most flags and their help on one line, and lines readable on wide terminals."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, _HELP_COLUMNS)
        super().__init__(prog, max_help_position=28, width=width - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap the one-line texts under group titles, and leave the examples as they are written."""
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)


class Parser(argparse.ArgumentParser):
    """Reads flags; raises UserError with exit code 2 where argparse would print its usage and end the process."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong."""
        raise UserError(f"{message}\n(python main.py --help lists every flag)", EXIT_USAGE)

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Return what was typed, by the names of the flags; one that is not known is refused with the nearest."""
        typed, unknown = self.parse_known_args(arguments)
        flags = [word.partition("=")[0] for word in unknown if _is_flag(word)]
        if flags:
            self._refuse(flags)
        if unknown:
            self.error(
                f"unrecognized arguments: {' '.join(unknown)}: a value stands behind its flag, and a switch takes none"
            )
        return vars(typed)

    def _refuse(self, flags: Sequence[str]) -> NoReturn:
        known = [name for action in self._actions for name in action.option_strings]
        near = [nearest_name(flag, known) for flag in flags]
        told = " ".join(
            f"{flag} is no flag: did you mean {one}?" if one else f"{flag} is no flag."
            for flag, one in zip(flags, near, strict=True)
        )
        if None in near:
            self.error(told.removesuffix("."))
        raise UserError(told, EXIT_USAGE)


def _is_flag(word: str) -> bool:
    """Whether a word was meant as a flag: `--epochs`, `-epochs=5`, also with the dash of a word processor; not `-5`."""
    return word[:1] in _DASHES and word.lstrip(_DASHES)[:1].isalpha()


class Version(argparse.Action):
    """Prints the version; argparse's own action would ask git and the packages for every command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print it and end the process."""
        from utils.version import version_text  # noqa: PLC0415  (importlib.metadata, for this flag alone)

        say(version_text())
        parser.exit()
