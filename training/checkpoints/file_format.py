"""What a file of weights is: the one judge, for whatever lists, checks, verifies or loads it. No torch needed.

A file says itself what it is, by its end (ours) and its start (the others), whatever its name. Only a name that ends in
.safetensors tells something, where the file is too damaged to.
"""

from __future__ import annotations

import os
import zipfile
from enum import Enum, auto

from training.checkpoints.last_entry import Readable

SAFETENSORS_SUFFIX = ".safetensors"
SEAL = b"bonafide sealed crc32:%08x"
SEAL_BYTES = len(SEAL % 0)
CUT_OR_BAD_BLOCK = "cut short or hit by a bad block"
# How a file of torch before version 1.6 begins: a pickle of this number (torch/serialization.py). Those of protocol 4
# and 5 torch unpickles only where code may run: they are plain pickles to us.
_OLD_TORCH_NUMBER = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_OLD_TORCH_PICKLES = (b"\x80\x02", b"\x80\x03")
_START_BYTES = 2 + len(_OLD_TORCH_NUMBER)
_PICKLE_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_LENGTH_BYTES = 8  # of a safetensors file's header, which follows


class BadCheckpointFileError(Exception):
    """A file that cannot be a whole checkpoint; the message says what was found, without the file's name."""


class NotUsableError(BadCheckpointFileError):
    """A file that may be as it was written, and that this program makes no use of."""


class FileFormat(Enum):
    """How the bytes of a file of weights are laid out."""

    SEALED = auto()
    """A zip file of torch with our seal at its end: every byte is under one checksum."""
    ZIP = auto()
    """A zip file, as torch writes since version 1.6: a checksum for each entry."""
    OLD_TORCH = auto()
    """Pickles and raw values, as torch wrote before version 1.6: no checksum."""
    SAFETENSORS = auto()
    """A JSON header and raw values: no checksum."""

    @property
    def is_zip(self) -> bool:
        """Whether zipfile reads it."""
        return self in (FileFormat.SEALED, FileFormat.ZIP)


def format_of(file: Readable, suffix: str) -> FileFormat:
    """Return what an open file is whose name ends in `suffix`; reads a few bytes at its end and its start.

    Raises BadCheckpointFileError for an empty file, one that was cut short and anything that is no file of weights,
    NotUsableError for pickles and what gzip compressed, and OSError.
    """
    if has_seal(file):
        return FileFormat.SEALED
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(_START_BYTES)
    if not start:
        raise BadCheckpointFileError("it is empty")
    if _begins_as_safetensors(start, size):
        return FileFormat.SAFETENSORS
    if _is_zip(file):
        return FileFormat.ZIP
    if start.startswith(_OLD_TORCH_PICKLES) and _OLD_TORCH_NUMBER in start:
        return FileFormat.OLD_TORCH
    if suffix.lower() == SAFETENSORS_SUFFIX:
        return FileFormat.SAFETENSORS  # whose reader says what is wrong with it
    if start.startswith(b"PK\x03\x04"):
        raise BadCheckpointFileError(f"it was {CUT_OR_BAD_BLOCK} (a zip file without its end)")
    raise _unknown(start)


def _is_zip(file: Readable) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # it has the end of one, which is damaged: whoever opens it says how
        return True


def has_seal(file: Readable) -> bool:
    """Whether an open file ends as ours do."""
    file.seek(sealed_bytes(file))
    return file.read().startswith(SEAL.split(b"%", 1)[0])


def sealed_bytes(file: Readable) -> int:
    """Return how many bytes of an open file lie before its seal."""
    return max(0, file.seek(0, os.SEEK_END) - SEAL_BYTES)


def _begins_as_safetensors(start: bytes, size: int) -> bool:
    """Whether the length of a header comes first, and then a JSON object."""
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    return start[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and length <= size - _LENGTH_BYTES


def _unknown(start: bytes) -> BadCheckpointFileError:
    """Return what to say of a file that begins like this and is none of the formats."""
    if start.startswith(b"\x1f\x8b"):
        return NotUsableError(
            "it is compressed with gzip, and what is inside may run code when it is unpickled: load it with the "
            "program that wrote it, save its state dict with torch.save and pass that file"
        )
    if start[:1] == b"\x80" and start[1:2] in _PICKLE_PROTOCOLS:
        return NotUsableError(
            "it is a plain pickle and not a file of torch.save with its usual settings: loading it could run code, so "
            "it is refused. If you trust it, load it with the program that wrote it, save its state dict with "
            "torch.save and pass that file"
        )
    return BadCheckpointFileError("it is not a checkpoint file: it begins like none that torch or safetensors writes")
