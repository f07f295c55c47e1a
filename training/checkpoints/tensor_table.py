"""Which tensors a torch file holds, without torch and without reading them: names, shapes, dtypes and bytes.

torch.save writes one pickle, in which each tensor is a call such as `torch._utils._rebuild_tensor_v2(storage, offset,
size, stride, ...)` and each storage a persistent id `("storage", type, key, device, elements)`; the values lie in
other entries of the zip file, which stay unread (torch/serialization.py and torch/_utils.py). `utils.inert_pickle`
reads such a pickle as data, so nothing in the file is run, whatever it asks for.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from training.checkpoints.file_format import BadCheckpointFileError, FileFormat, format_of
from training.checkpoints.safetensors_file import BadSafetensorsError, header_in
from training.checkpoints.sealed_file import BAD_ENTRY
from training.checkpoints.zip_directory import open_zip
from utils.inert_pickle import Call, Global, InertPickle, InertPickleError, Reference, read_inert_pickle
from utils.regular_files import open_regular

_PICKLE_LIMIT_BYTES = 1 << 26
_DEPTH_LIMIT = 50
_SIZE_LIMIT = 1 << 63
_DIMENSIONS_LIMIT = 64  # torch's own
_UNREADABLE = (zipfile.BadZipFile, OSError, LookupError, TypeError, *BAD_ENTRY)
# What torch.load(weights_only=True) takes; everything else might be code (torch/_weights_only_unpickler.py).
_PLAIN_NAME = re.compile(
    r"collections\.(OrderedDict|Counter)|builtins\.(set|bytearray|complex)|_codecs\.encode"
    r"|torch\.((cuda|sparse|cuda\.sparse|storage)\.)?\w*(Storage|Tensor)|torch\.nn\.parameter\.Parameter"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.serialization\._get_layout"
    r"|torch\.((b?complex|b?float|bits|q?u?int)\d\w*|bool|per_(tensor|channel)_\w+|Size|device)"
)
# Data that other programs keep beside weights: settings, paths, figures and random states in numpy's types, the
# factories of default dictionaries. Loading builds none of it and puts something of its own in its place (see
# verified_load), so that no code but ours ever gets what the file holds.
FOREIGN_DATA = (
    "argparse.Namespace",
    "collections.defaultdict",
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
    *("builtins.long", "builtins.unicode"),  # what pickle protocol 2 calls int and str
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    ),
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "torch.torch_version.TorchVersion",
)
_REBUILT_FROM_STORAGE = tuple(f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "qtensor"))
_REBUILT_WITH_DTYPE = "torch._utils._rebuild_tensor_v3"
_REBUILT_WITHOUT_STORAGE = "torch._utils._rebuild_meta_tensor_no_storage"
_REBUILT_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
_DTYPE_OF_STORAGE = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
    "QUInt8": "quint8",
    "QInt8": "qint8",
    "QInt32": "qint32",
    "QUInt4x2": "quint4x2",
    "QUInt2x4": "quint2x4",
    "Untyped": "uint8",
}
_BITS = re.compile(r"bool|[a-z]+?(\d+)(?:[_x].*)?")


@dataclass(frozen=True)
class TensorEntry:
    """One tensor. `key` is the file's top-level key that it lies under, or "" where the file is itself a state dict.

    `bytes` is what its values take; tensors with one `storage` share them, and None is a tensor without values.
    """

    key: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    storage: str | None

    @property
    def values(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class TensorTable:
    """What a torch file holds beside numbers.

    `keys` are its top-level keys and `plain` those with a number or text; `state_dicts` are the keys that hold tensors
    and nothing else ("" if that is the whole file). `code` are names for which loading refuses the file.
    `has_checksums` is False for the format before torch 1.6.
    """

    tensors: tuple[TensorEntry, ...]
    keys: tuple[str, ...]
    plain: Mapping[str, Any]
    state_dicts: tuple[str, ...]
    code: tuple[str, ...]
    has_checksums: bool

    def under(self, key: str) -> list[TensorEntry]:
        """Return the tensors of one top-level key."""
        return [tensor for tensor in self.tensors if tensor.key == key]


def stored_bytes(tensors: Iterator[TensorEntry] | list[TensorEntry] | tuple[TensorEntry, ...]) -> int:
    """Return the bytes of all these tensors, those of a shared storage once (as the largest of its tensors)."""
    sizes: dict[str | None, int] = {}
    for tensor in tensors:
        sizes[tensor.storage] = max(sizes.get(tensor.storage, 0), tensor.bytes)
    return sum(sizes.values())


def read_tensor_table(path: Path) -> TensorTable:
    """Return the tensors of a file of ours or of another program; takes milliseconds whatever its size.

    Raises BadCheckpointFileError where the file is cut short, lacks the values of a tensor, or is no torch file.
    """
    try:
        with open_regular(path) as file:
            match format_of(file, path.suffix):
                case FileFormat.SAFETENSORS:
                    return _table_of_safetensors(file)
                case FileFormat.OLD_TORCH:
                    return _table_of_old_format(file)
                case FileFormat.SEALED | FileFormat.ZIP:
                    with open_zip(file) as archive:
                        return table_of_zip(archive)
    except (InertPickleError, *_UNREADABLE) as error:
        raise BadCheckpointFileError(f"its list of tensors cannot be read ({error})") from error


def _table_of_safetensors(file: IO[bytes]) -> TensorTable:
    try:
        stored = header_in(file)
    except BadSafetensorsError as error:
        raise BadCheckpointFileError(str(error)) from error
    tensors = tuple(TensorEntry("", t.name, t.shape, t.dtype, t.bytes, t.name) for t in stored)
    return TensorTable(tensors, tuple(t.name for t in stored), {}, ("",), (), has_checksums=False)


def table_of_zip(archive: zipfile.ZipFile) -> TensorTable:
    """Return the tensors of an open archive of torch; raises as `read_tensor_table`, and what zipfile does."""
    sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    top = next(iter(sizes), "").split("/", 1)[0]
    if sizes.get(f"{top}/data.pkl", 0) > _PICKLE_LIMIT_BYTES:
        raise BadCheckpointFileError("its list of tensors is larger than any that torch writes for a network")
    if f"{top}/data.pkl" not in sizes:
        raise BadCheckpointFileError("it is a zip file, and not one that torch wrote")
    storages: dict[str, int] = {}
    table = _table(read_inert_pickle(io.BytesIO(archive.read(f"{top}/data.pkl"))), storages, has_checksums=True)
    for key, size in storages.items():
        if sizes.get(f"{top}/data/{key}") != size:
            found = sizes.get(f"{top}/data/{key}", "no")
            raise BadCheckpointFileError(f"the values of storage {key} are not whole: {found} of {size} bytes")
    return table


def _table_of_old_format(file: IO[bytes]) -> TensorTable:
    """Read the format before torch 1.6: four pickles (magic, version, system, content), storage keys, raw values."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = io.BytesIO(file.read(_PICKLE_LIMIT_BYTES))
    for _ in range(3):
        read_inert_pickle(start)
    storages: dict[str, int] = {}
    table = _table(read_inert_pickle(start), storages, has_checksums=False)
    read_inert_pickle(start)
    missing = start.tell() + sum(8 + count for count in storages.values()) - size  # 8: each storage's number of values
    if missing > 0:
        raise BadCheckpointFileError(f"it was cut short: {missing} bytes are missing")
    return table


def _table(found: InertPickle, storages: dict[str, int], *, has_checksums: bool) -> TensorTable:
    top = _mapping_of(found.value)
    parts = {str(key): part for key, part in top.items()}
    is_state_dict = _holds_only_tensors(top)
    tensors = []
    for name, call in _tensors_in(found.value, "", 0, set()):
        key, _, rest = ("", "", name) if is_state_dict else name.partition("\0")
        tensors.append(_entry(key, rest.replace("\0", "."), call, storages))
    return TensorTable(
        tensors=tuple(tensors),
        keys=tuple(parts),
        plain={key: part for key, part in parts.items() if _is_plain(part)},
        state_dicts=("",)
        if is_state_dict
        else tuple(k for k, p in parts.items() if _holds_only_tensors(_mapping_of(p))),
        code=tuple(sorted(name for name in found.names if not is_loaded(name))),
        has_checksums=has_checksums,
    )


def is_loaded(name: str) -> bool:
    """Whether loading takes a file that names this class or function; any other name might be code.

    >>> is_loaded("torch._utils._rebuild_tensor_v2"), is_loaded("argparse.Namespace"), is_loaded("posix.system")
    (True, True, False)
    """
    return name in FOREIGN_DATA or _PLAIN_NAME.fullmatch(name) is not None


def _is_plain(value: Any) -> bool:
    """Whether this is a number or text; Python refuses to print an integer of thousands of digits."""
    return isinstance(value, str | float | None) or (isinstance(value, int) and abs(value) < _SIZE_LIMIT)


def _mapping_of(value: Any) -> Mapping[Any, Any]:
    """Return the items of a dictionary of any kind; {} for anything else."""
    if isinstance(value, Call) and value.function in _DICTIONARIES:
        return value.mapping
    return value if isinstance(value, dict) else {}


def _holds_only_tensors(mapping: Mapping[Any, Any]) -> bool:
    return bool(mapping) and all(_tensor_call(part) for part in mapping.values())


def _tensor_call(value: Any) -> Call | None:
    """Return the call that makes a tensor, without the one around it that makes a parameter of it."""
    while isinstance(value, Call) and value.function in _REBUILT_PARAMETERS:
        value = value.arguments[0] if value.arguments else None
    known = (*_REBUILT_FROM_STORAGE, _REBUILT_WITH_DTYPE, _REBUILT_WITHOUT_STORAGE)
    return value if isinstance(value, Call) and value.function in known else None


def _tensors_in(value: Any, name: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Call]]:
    """Yield each tensor with the keys that lead to it, joined by NUL; a container that occurs twice is visited once."""
    call = _tensor_call(value)
    if call is not None:
        yield name, call
        return
    if not isinstance(value, dict | list | tuple | Call) or id(value) in seen:
        return
    if depth > _DEPTH_LIMIT:
        raise BadCheckpointFileError(f"it is nested more than {_DEPTH_LIMIT} deep")
    seen.add(id(value))
    for key, part in _parts(value):
        yield from _tensors_in(part, f"{name}\0{key}" if depth else str(key), depth + 1, seen)


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, Call):
        yield from value.mapping.items()
        yield from enumerate(value.elements)
        yield from enumerate(value.arguments)
        yield "state", value.state
    elif isinstance(value, list | tuple):
        yield from enumerate(value)


def _entry(key: str, name: str, call: Call, storages: dict[str, int]) -> TensorEntry:
    """Turn one call into facts, and note how large its storage is; what does not fit together is damage."""
    arguments = call.arguments
    if call.function == _REBUILT_WITHOUT_STORAGE:
        dtype, shape = _dtype(arguments[0]), _shape(arguments[1])
        return TensorEntry(key, name, shape, dtype, 0, None)
    if len(arguments) < 4 or not isinstance(arguments[0], Reference):
        raise BadCheckpointFileError(f"its tensor {name} has no storage")
    match arguments[0].key:
        case ("storage", Global(name=kind), str(storage), _, int(count), *_):
            pass
        case _:
            raise BadCheckpointFileError(f"its tensor {name} has a storage of an unknown kind")
    stored_dtype = _DTYPE_OF_STORAGE.get(kind.rpartition(".")[2].removesuffix("Storage"))
    if stored_dtype is None:
        raise BadCheckpointFileError(f"its tensor {name} has a storage of the unknown type {kind}")
    storages[storage] = count * item_bytes(stored_dtype)
    shape = _shape(arguments[2])
    dtype = _dtype(arguments[6]) if call.function == _REBUILT_WITH_DTYPE else stored_dtype
    return TensorEntry(key, name, shape, dtype, math.prod(shape) * item_bytes(dtype), storage)


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, Call) and value.function == "torch.Size" and value.arguments:
        value = value.arguments[0]
    is_tuple = isinstance(value, tuple) and len(value) <= _DIMENSIONS_LIMIT
    if not is_tuple or not all(type(n) is int and 0 <= n < _SIZE_LIMIT for n in value):
        raise BadCheckpointFileError("one of its tensors has no sensible shape")
    return tuple(value)


def _dtype(value: Any) -> str:
    if not isinstance(value, Global) or not value.name.startswith("torch."):
        raise BadCheckpointFileError("one of its tensors has no sensible dtype")
    return value.name.removeprefix("torch.")


def item_bytes(dtype: str) -> int:
    """Return the bytes of one value; for types of less than a byte those of what packs several of them.

    >>> [item_bytes(name) for name in ("float32", "bfloat16", "bool", "complex64", "float8_e4m3fn", "quint4x2")]
    [4, 2, 1, 8, 1, 1]
    """
    match = _BITS.fullmatch(dtype)
    if match is None:
        raise BadCheckpointFileError(f"one of its tensors has the unknown dtype {dtype}")
    return max(1, int(match.group(1) or 8) // 8)
