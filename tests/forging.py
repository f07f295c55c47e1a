"""Files with a valid seal and any record: what only somebody who means it, or another version, would write."""

from __future__ import annotations

import functools
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from training.checkpoints.file_format import SEAL, SEAL_BYTES
from training.checkpoints.sealed_file import RECORD_NAME

Place = tuple[str | int, ...]
"""Where in a record a value stands: keys, and positions in lists."""

MISSING = object()
"""In the table of odd values: the key is taken away."""


class Raw(str):
    """JSON that json.dumps would not write."""


ODD: list[Any] = [
    MISSING,
    None,
    True,
    -1,
    0.5,
    2**63,
    Raw("1" + "0" * 400),
    Raw("1" + "0" * 5000),
    Raw("1e999"),
    Raw("NaN"),
    Raw("[" * 100_000 + "]" * 100_000),
    Raw("[" * 60 + "]" * 60),
    "",
    "text",
    "../x",
    "a\x1b[2J\x07\n\u202eb",
    "\0",
    Raw('"\\ud800"'),
    Raw('"\\udcff"'),
    [],
    [None],
    {},
    {"a": {"b": 1}},
]


@functools.cache
def _archive() -> bytes:
    made = io.BytesIO()
    torch.save({"model_state_dict": {"weight": torch.arange(4.0)}}, made)
    return made.getvalue()


def write_forged(path: Path, record: Any) -> None:
    """Write a sealed file with a record of plain values, or with the text of one."""
    file = io.BytesIO(_archive())
    with zipfile.ZipFile(file, "a") as archive:
        top = archive.namelist()[0].split("/", 1)[0]
        archive.writestr(
            zipfile.ZipInfo(f"{top}/{RECORD_NAME}"), record if isinstance(record, str) else text_of(record)
        )
        archive.comment = SEAL % 0
    content = file.getvalue()[:-SEAL_BYTES]
    path.write_bytes(content + SEAL % zlib.crc32(content))


def text_of(record: Any) -> str:
    """Return the JSON of a record in which some values may be Raw."""
    raw: list[Raw] = []

    def hold(value: Any) -> Any:
        if isinstance(value, Raw):
            raw.append(value)
            return f"<raw {len(raw) - 1}>"
        if isinstance(value, dict):
            return {name: hold(part) for name, part in value.items()}
        return [hold(part) for part in value] if isinstance(value, list) else value

    text = json.dumps(hold(record))
    for number, value in enumerate(raw):
        text = text.replace(f'"<raw {number}>"', value)
    return text


def places_in(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yield where every value of a record stands, containers before what is in them."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*at, key)
        yield from places_in(part, (*at, key))


def changed(record: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """Return a copy of a record with another value in one place, or without it."""
    made = deepcopy(record)
    inner: Any = made
    for key in place[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return made


def is_harmless(said: str) -> bool:
    """Whether nothing in a text acts on a terminal."""
    return all(line.isprintable() for line in said.split("\n"))


Make = Callable[[Path], object]
