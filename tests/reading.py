"""How many bytes of each file a command reads, as the kernel saw it: every kind of read, and every map of a file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

READS = "read,pread64,readv,preadv,preadv2,mmap,sendfile,copy_file_range"
_CALL = re.compile(r"(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>0x[0-9a-f]+|\d+)")
_FILE = re.compile(r"\d+<(?P<path>/[^>]*)>")
_MAPPED = re.compile(r"(?:NULL|0x[0-9a-f]+), (?P<bytes>\d+), ")
_LINE = re.compile(r"(?P<thread>\d+) +(?:<\.\.\. \w+ resumed>)?(?P<rest>.*)")
_UNFINISHED = " <unfinished ...>"


def bytes_read(trace: Iterable[str]) -> Counter[str]:
    """Return the bytes that calls took from each path, out of what `strace -f -y -e trace=READS` wrote."""
    found: Counter[str] = Counter()
    waiting: dict[str, str] = {}
    for line in trace:
        parts = _LINE.fullmatch(line.rstrip())
        if parts is None:
            continue
        thread, rest = parts["thread"], waiting.pop(parts["thread"], "") + parts["rest"]
        if rest.endswith(_UNFINISHED):
            waiting[thread] = rest.removesuffix(_UNFINISHED)
        elif (call := _CALL.match(rest)) and (file := _source(call)):
            found[file] += _amount(call)
    return found


def _source(call: re.Match[str]) -> str | None:
    """Return the file that is read: the first one named, which of copy_file_range is the source, of sendfile not."""
    files = [file["path"] for file in _FILE.finditer(call["arguments"])]
    return files[-1 if call["call"] == "sendfile" else 0] if files else None


def _amount(call: re.Match[str]) -> int:
    mapped = _MAPPED.match(call["arguments"]) if call["call"] == "mmap" else None
    return int(mapped["bytes"]) if mapped else int(call["result"], 0)


def bytes_read_of(trace: Iterable[str], names: Iterable[Path]) -> int:
    """Return the bytes that were read of one file under all of its names."""
    paths = {str(path.resolve()) for path in names}
    return sum(size for path, size in bytes_read(trace).items() if path in paths)


def names_of(file: Path) -> list[Path]:
    """Return all names of a file in its folder, hard links included."""
    return [path for path in file.parent.iterdir() if path.samefile(file)]
