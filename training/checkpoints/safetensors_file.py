"""What a safetensors file holds, by its header alone, without torch and without reading a tensor.

Eight bytes with the length of the header (little-endian), the header as JSON (name: dtype, shape, data_offsets), then
the values (https://huggingface.co/docs/safetensors, "Format"). There is no checksum: a cut file is noticed, a flipped
bit in a weight is not.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any

from training.checkpoints.last_entry import Readable

_LENGTH_BYTES = 8
_HEADER_LIMIT_BYTES = 100_000_000  # the format's own
_METADATA = "__metadata__"
_DTYPES = {"BF16": "bfloat16", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
_NO_HEADER = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_KINDS = {"F": "float", "I": "int", "U": "uint", "C": "complex"}


class BadSafetensorsError(Exception):
    """A file that is no whole safetensors file; the message says why, without the file's name."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of the file: dtype as torch calls it, and the bytes that its values take."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


def header_in(file: Readable) -> list[StoredTensor]:
    """Return the tensors of an open file, in its order.

    Raises BadSafetensorsError where it is cut short or no such file, and OSError.
    """
    size, length, header = _read_header(file)
    try:
        entries = {name: entry for name, entry in header.items() if name != _METADATA}
        tensors = [_tensor(name, entry) for name, entry in entries.items()]
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except _NO_HEADER as error:
        raise BadSafetensorsError(f"its header is damaged ({error})") from error
    missing = _LENGTH_BYTES + length + end - size
    if missing > 0:
        raise BadSafetensorsError(f"it was cut short: {missing} bytes are missing")
    return tensors


def metadata_in(file: Readable) -> dict[str, str]:
    """Return the texts in an open file's header, by name; raises BadSafetensorsError where it is no such file."""
    found = _read_header(file)[2].get(_METADATA)
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}


def _read_header(file: Readable) -> tuple[int, int, dict[str, Any]]:
    """Return the bytes of the whole file, those of its header, and the header."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if not 0 < length <= min(_HEADER_LIMIT_BYTES, size - _LENGTH_BYTES):
        raise BadSafetensorsError("it is no safetensors file, or was cut short within its header")
    try:
        header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise TypeError(f"it is a {type(header).__name__}")
    except _NO_HEADER as error:
        raise BadSafetensorsError(f"its header is damaged ({error})") from error
    return size, length, header


def _tensor(name: str, entry: dict[str, Any]) -> StoredTensor:
    shape = tuple(int(size) for size in entry["shape"])
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end or any(size < 0 for size in shape) or (end == begin) != (math.prod(shape) == 0):
        raise ValueError(f"the place of {name} makes no sense")
    return StoredTensor(name, shape, _dtype(str(entry["dtype"])), end - begin)


def _dtype(name: str) -> str:
    """Return torch's name of a dtype.

    >>> _dtype("F32"), _dtype("BF16"), _dtype("U8")
    ('float32', 'bfloat16', 'uint8')
    """
    return _DTYPES.get(name) or f"{_KINDS[name[0]]}{int(name[1:])}"
