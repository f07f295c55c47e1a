"""How a setting becomes a flag: its kind of value, how several are read between commas, and its help."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from training.settings.options import SETTINGS, part_type, setting_type
from training.settings.setting import Setting, seconds_in

_Number = TypeVar("_Number", int, float)

# Characters of choices that fit into 80 columns beside their flag: argparse does not wrap them.
WIDEST_CHOICES = 60


def add_setting(group: argparse._ArgumentGroup, option: dataclasses.Field[Any]) -> None:
    """Add the flag of one setting to its group of the help."""
    declared: Setting = SETTINGS[option.name]
    kind = setting_type(option.name)
    if kind is bool:
        group.add_argument(f"--{option.name}", action=argparse.BooleanOptionalAction, help=_help(option, declared))
        return
    choices = declared.choices or None
    metavar = None if choices else {int: "N", float: "X", str: "TEXT", tuple: "N,N"}[kind]
    read: Any = kind
    if declared.is_time:
        metavar, read = "TIME", a_time
    elif kind is tuple and part_type(option.name) is int:
        read = whole_numbers
    elif kind is tuple and part_type(option.name) is str:
        metavar, read = "TEXT,TEXT", words
    elif kind is tuple:
        metavar, read = "X,X", numbers
    if len(",".join(declared.choices)) > WIDEST_CHOICES:
        metavar = "NAME"  # the help tells them
    group.add_argument(f"--{option.name}", type=read, choices=choices, metavar=metavar, help=_help(option, declared))


def a_time(text: str) -> float:
    """Read a time in seconds.

    >>> a_time("5m")
    300.0
    """
    try:
        return seconds_in(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a time such as 60s, 5m or 1h, found {text!r}") from error


def whole_numbers(text: str) -> tuple[int, ...]:
    """Read whole numbers between commas.

    >>> whole_numbers("10, 25")
    (10, 25)
    """
    return _separated(text, int, "whole numbers between commas, such as 10,25,50")


def numbers(text: str) -> tuple[float, ...]:
    """Read numbers between commas.

    >>> numbers("0.1, 9")
    (0.1, 9.0)
    """
    return _separated(text, float, "numbers between commas, such as 0.1,0.9")


def words(text: str) -> tuple[str, ...]:
    """Read words between commas; empty ones are passed over.

    >>> words("adapter, training")
    ('adapter', 'training')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _separated(text: str, read: Callable[[str], _Number], what: str) -> tuple[_Number, ...]:
    """Read each part; argparse adds the flag's name to the words of a refusal."""
    try:
        return tuple(read(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {what}, found {text!r}") from error


def _help(option: dataclasses.Field[Any], declared: Setting) -> str:
    text = declared.help.replace("%", "%%")
    return text if "(default" in text or option.default is None else f"{text} (default: {option.default})"
