"""What was read back is not believed: the one place that checks types, finiteness and plain names of stored values.

A file of ours may have a valid seal and odd values: another version, a slip or somebody wrote them. Whoever reads a
record, a journal or a history asks here, and names the file that does not pass.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

DEEPEST = 40
_MOST = 2**63 - 1
_NAME_BYTES = 255
YEAR_3000_S = 32_503_680_000
_SHOWN = 60

Check = Callable[[Any], bool]
"""Whether a value is what one place of a file must hold."""


class OddValueError(ValueError):
    """A value that no version stores; the message says what was found, without the file's name."""


def plain_json(content: bytes | str) -> Any:
    """Return what a JSON text holds: finite numbers that 64 bits hold, text that a file system can have, not too deep.

    Raises OddValueError for anything else.

    >>> plain_json('{"rate": 1e999}')
    Traceback (most recent call last):
    ...
    utils.stored_values.OddValueError: it holds a number that is not finite
    """
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except OddValueError:
        raise
    except RecursionError as error:
        raise OddValueError(f"it is nested more than {DEEPEST} deep") from error
    except ValueError as error:
        raise OddValueError(f"it is no JSON ({error})") from error
    require_plain(value)
    return value


def require_plain(value: Any) -> None:
    """Raise OddValueError for a number, a text or a depth that no file of ours has; looks into containers."""
    waiting = [(value, 1)]
    while waiting:
        part, depth = waiting.pop()
        if depth > DEEPEST:
            raise OddValueError(f"it is nested more than {DEEPEST} deep")
        if isinstance(part, dict):
            waiting += [(one, depth + 1) for pair in part.items() for one in pair]
        elif isinstance(part, list | tuple):
            waiting += [(one, depth + 1) for one in part]
        elif isinstance(part, str):
            if not is_text(part):
                raise OddValueError(f"it holds a text that is none: {shown(part)}")
        elif isinstance(part, float) and not math.isfinite(part):
            raise OddValueError("it holds a number that is not finite")
        elif isinstance(part, int) and not -_MOST - 1 <= part <= _MOST:
            raise OddValueError("it holds a whole number that is larger than 64 bits can hold")


def _refuse_constant(_: str) -> NoReturn:
    raise OddValueError("it holds a number that is not finite")


def require(stored: Any, checks: Mapping[str, Check]) -> None:
    """Raise OddValueError that names each key of `checks` whose value is missing in a mapping or does not pass.

    >>> require({"epoch": -1, "step": 2}, {"epoch": is_count, "step": is_count})
    Traceback (most recent call last):
    ...
    utils.stored_values.OddValueError: it has no sensible epoch (found -1)
    """
    if not isinstance(stored, Mapping):
        raise OddValueError(f"a table of values was expected, found {shown(stored)}")
    odd = [name for name, check in checks.items() if name not in stored or not check(stored[name])]
    if odd:
        first = shown(stored[odd[0]]) if odd[0] in stored else "nothing"
        raise OddValueError(f"it has no sensible {', '.join(odd)} (found {first})")


def is_count(value: Any) -> bool:
    """Whether this is a whole number from 0 on."""
    return type(value) is int and 0 <= value <= _MOST


def is_number(value: Any) -> bool:
    """Whether this is a finite number; true and false are none."""
    if type(value) is int:
        return -_MOST <= value <= _MOST
    return type(value) is float and math.isfinite(value)


def is_duration(value: Any) -> bool:
    """Whether this is a finite number from 0 on."""
    return is_number(value) and bool(value >= 0)


def is_time(value: Any) -> bool:
    """Whether this is a time in seconds since 1970, before the year 3000."""
    return is_number(value) and bool(0 <= value < YEAR_3000_S)


def is_rate(value: Any) -> bool:
    """Whether this is a fraction, from 0 to 1."""
    return is_number(value) and bool(0 <= value <= 1)


def is_text(value: Any) -> bool:
    """Whether this is text that a file system could give: no lone surrogate but those of bytes, and no NUL."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def is_word(value: Any) -> bool:
    """Whether this is text with nothing in it but printable characters."""
    return isinstance(value, str) and bool(value) and value.isprintable()


def is_entry_name(value: Any) -> bool:
    """Whether this can be the name of an entry of a folder, and leads nowhere else, whatever is in it.

    >>> [is_entry_name(name) for name in ("best.pth", "two\\nlines", "../x", "..", "")]
    [True, True, False, False, False]
    """
    if not is_text(value) or value in ("", ".", "..") or "/" in value:
        return False
    return len(value.encode("utf-8", "surrogateescape")) <= _NAME_BYTES


def is_plain_name(value: Any) -> bool:
    """Whether this is such a name, and has no control character either.

    >>> [is_plain_name(name) for name in ("best.pth", "a\\x1b[2J", "../x")]
    [True, False, False]
    """
    return is_entry_name(value) and all(c.isprintable() or "\udc80" <= c <= "\udcff" for c in value)


def is_list_of(check: Check) -> Check:
    """Return the check of a list, or tuple, of such values."""
    return lambda value: isinstance(value, list | tuple) and all(map(check, value))


def is_table_of(check: Check) -> Check:
    """Return the check of a mapping from text to such values."""
    return lambda value: isinstance(value, Mapping) and all(map(is_text, value)) and all(map(check, value.values()))


def optional(check: Check) -> Check:
    """Return the check of such a value or None."""
    return lambda value: value is None or check(value)


def anything(_: Any) -> bool:
    """Whatever it is, it passes."""
    return True


def shown(value: Any) -> str:
    """Return a value as a message shows it, short."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
