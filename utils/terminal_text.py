"""Text for a terminal: sizes as a person reads them, and lines that cannot act on the terminal they are shown on."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

RULE = "=" * 70
"""The line above and below a block of facts."""


def bytes_text(count: int) -> str:
    """Return a number of bytes in decimal units, as disks are sold.

    >>> bytes_text(999), bytes_text(3_812_345_678)
    ('999 bytes', '3.8 GB')
    """
    if count < 1000:
        return f"{count} bytes"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def printable(line: str) -> str:
    """Return one line with "?" for everything that is no printable character: names in a file may be made to harm.

    Those are control characters, line ends and what turns the direction of writing among them, and bytes that are not
    UTF-8. Spaces of other widths stay.

    >>> printable("layer\\x1b[2J.weight")
    'layer?[2J.weight'
    """
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else "?" for c in line)


def one_line(text: str) -> str:
    """Return a text as one printable line."""
    return printable(" ".join(text.splitlines()))


def lines_text(lines: Iterable[str]) -> str:
    """Return lines as one text, each as `printable` has it: a name with a line end in it begins no line of its own."""
    return "\n".join(map(printable, lines))


def printable_text(text: str) -> str:
    """Return a text of several lines, each as `printable` has it.

    >>> printable_text("a\\x07\\nb")
    'a?\\nb'
    """
    return lines_text(text.split("\n"))


def age_text(seconds: float) -> str:
    """Return how long ago something was, in the largest unit that fits; a time in the future counts as now.

    >>> age_text(59), age_text(90), age_text(7200), age_text(86_400 * 3)
    ('just now', '1 minute ago', '2 hours ago', '3 days ago')
    """
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count > 0:
            return f"{count:,} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def padded(text: str, columns: int) -> str:
    """Return text with spaces behind it up to `columns` columns of a terminal; Chinese letters take two, accents none.

    >>> padded("录音", 5), padded("abc", 5)
    ('录音 ', 'abc  ')
    """
    return text + " " * max(0, columns - columns_of(text))


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes (Unicode Standard Annex 11).

    >>> columns_of("录音.wav"), columns_of("u\u0308")
    (8, 1)
    """
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
