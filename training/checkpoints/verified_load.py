"""Makes tensors of the bytes that a verified file holds, ours or another program's; no code in it is run.

`torch.load(weights_only=True)` refuses every name that it does not know. The checkpoints of other programs often hold
their settings and figures beside the weights, as `argparse.Namespace`, numpy numbers, paths and the like. For exactly
the names in FOREIGN_DATA something of ours is put in their place, so that the tensors can be had: neither the class
that the file names nor anything in numpy or pathlib is called, and what the file gives them is dropped. (Allowing
`numpy.dtype` itself would let a file set the flags of a dtype, and so read bytes of its choice as pointers.)
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any, cast

import torch

from training.checkpoints.file_bytes import TakingReader
from training.checkpoints.file_format import FileFormat
from training.checkpoints.left_out import places_of
from training.checkpoints.tensor_table import FOREIGN_DATA
from training.checkpoints.verified_file import NoLongerReadableError, VerifiedFile
from utils.errors import UserError
from utils.inert_pickle import BAD_PICKLE

_FORBIDDEN_GLOBAL = re.compile(r"GLOBAL (\S+)")


class DroppedValue:
    """Stands where a file has something that is no tensor and no plain value; takes whatever it is given, keeps none.

    Loading hands the arguments and the state from the file to it: nothing in it looks at them.
    """

    def __new__(cls, *_arguments: Any) -> DroppedValue:
        """Take what the class in the file would have been made from."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Take what its fields would have been."""


def _dictionary(*_arguments: Any) -> dict[Any, Any]:
    """Stand in for defaultdict, whose factory is of no use here: torch puts the items into a plain dictionary."""
    return {}


def stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return what `torch.serialization.safe_globals` is given: for each name of FOREIGN_DATA something of ours."""
    own = {"collections.defaultdict": _dictionary}
    return [(own.get(name, DroppedValue), name) for name in FOREIGN_DATA]


def load_verified(opened: VerifiedFile, without: Collection[str] = ()) -> dict[str, Any]:
    """Return what a file of tensors holds, on the CPU; its bytes are given back then, so that it is loaded once.

    Of a file of ours the top-level keys in `without` are left out, and take no time. Raises UserError where it would
    run code, NoLongerReadableError where it was changed since it was verified, or cannot be read any more, and
    RuntimeError where it was loaded before.
    """
    path, content = opened.path, opened.content
    load = _load_safetensors if opened.format is FileFormat.SAFETENSORS else _load_torch
    try:
        with content.take() as file:
            if without and opened.format is FileFormat.SEALED:
                file.left_out = places_of(without, content.reader())
            payload = load(path, file)
    finally:
        if content.failure:
            raise NoLongerReadableError(path, content.failure)
    if not isinstance(payload, dict):
        raise UserError(f"{path} holds a {type(payload).__name__}, not a checkpoint or state dict")
    for key in without:
        payload.pop(key, None)
    return payload


def _load_torch(path: Path, file: TakingReader) -> Any:
    try:
        with torch.serialization.safe_globals(stand_ins()):
            return torch.load(cast(IO[bytes], file), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _FORBIDDEN_GLOBAL.search(str(error))
        what = f"it refers to {found.group(1)}" if found else first_line(error)
        raise UserError(
            f"{path} holds more than tensors and plain values ({what}): loading it could run code, so it is refused. "
            "If you trust it, save its state dict alone with torch.save and pass that file"
        ) from error
    except BAD_PICKLE as error:
        raise UserError(f"{path} cannot be read by torch: {first_line(error)}") from error


def _load_safetensors(path: Path, file: TakingReader) -> dict[str, Any]:
    """Hand all bytes over at once, as this library takes them; `load_file` would map the file into memory."""
    from safetensors import SafetensorError  # noqa: PLC0415  (few files are of this format)
    from safetensors.torch import load  # noqa: PLC0415

    try:
        return dict(load(file.read()))
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read by safetensors: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
