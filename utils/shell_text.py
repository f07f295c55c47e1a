"""Words of a command as they are printed for somebody to paste: each stays one word, and none acts on the terminal."""

from __future__ import annotations

import shlex
from pathlib import Path


def quoted(word: str) -> str:
    """Return a word as bash and zsh read it, with what is not printable written as bytes.

    >>> print(quoted("models/run"), quoted("my run"), quoted("no bell" + chr(7)))
    models/run 'my run' $'no bell\\x07'
    """
    return shlex.quote(word) if word.isprintable() else "$'" + "".join(map(_escaped, word)) + "'"


def with_path(flag: str, path: str | Path) -> str:
    """Return a flag with a path behind it; one that begins like a flag itself is joined to it.

    >>> with_path("--model_path", "a run/x.pth"), with_path("--model_path", "-x.pth")
    ("--model_path 'a run/x.pth'", '--model_path=-x.pth')
    """
    return f"{flag}{'=' if str(path).startswith('-') else ' '}{quoted(str(path))}"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
