"""The list of tensors, read without torch, is the one that torch itself has; and no file makes it do anything else."""

from __future__ import annotations

import os
import random
import re
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._weights_only_unpickler import _get_allowed_globals

from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.tensor_table import _PLAIN_NAME, TensorEntry, TensorTable, read_tensor_table, stored_bytes

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2),
]


def saved(folder: Path, payload: Any, **how: Any) -> Path:
    path = folder / "weights.pth"
    torch.save(payload, path, **how)
    return path


def table_of(folder: Path, payload: Any, **how: Any) -> TensorTable:
    return read_tensor_table(saved(folder, payload, **how))


def by_torch(key: str, state_dict: dict[str, torch.Tensor]) -> list[tuple[str, str, tuple[int, ...], str, int]]:
    return [
        (key, name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.numel() * tensor.itemsize)
        for name, tensor in state_dict.items()
    ]


def facts(tensors: list[TensorEntry]) -> list[tuple[str, str, tuple[int, ...], str, int]]:
    return [(tensor.key, tensor.name, tensor.shape, tensor.dtype, tensor.bytes) for tensor in tensors]


def trained_network() -> tuple[nn.Module, torch.optim.Optimizer]:
    network = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(2, 1, 4)).sum().backward()
    optimizer.step()
    return network, optimizer


@pytest.mark.parametrize(("zipped", "protocol"), [(True, 2), (True, 3), (True, 4), (True, 5), (False, 2), (False, 3)])
def test_a_trained_network_and_its_optimizer_are_listed_as_torch_sees_them(
    tmp_path: Path, zipped: bool, protocol: int
) -> None:
    network, optimizer = trained_network()
    payload = {"epoch": 3, "net": network.state_dict(), "optim": optimizer.state_dict(), "lr": 1e-6, "note": None}
    found = table_of(tmp_path, payload, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert facts(found.under("net")) == by_torch("net", network.state_dict())
    states = optimizer.state_dict()["state"]
    flat = {f"state.{number}.{name}": tensor for number, state in states.items() for name, tensor in state.items()}
    assert facts(found.under("optim")) == by_torch("optim", flat)
    assert found.keys == ("epoch", "net", "optim", "lr", "note")
    assert dict(found.plain) == {"epoch": 3, "lr": 1e-6, "note": None}
    assert (found.state_dicts, found.code, found.has_checksums) == (("net",), (), zipped)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_has_its_name_and_its_bytes(tmp_path: Path, dtype: torch.dtype) -> None:
    state_dict = {"full": torch.zeros(3, 2, dtype=dtype), "scalar": torch.zeros((), dtype=dtype)}
    found = table_of(tmp_path, state_dict)
    assert facts(list(found.tensors)) == by_torch("", state_dict)
    assert found.state_dicts == ("",)


def test_parameters_views_empty_and_meta_tensors_are_listed(tmp_path: Path) -> None:
    base = torch.arange(10.0)
    state_dict = {
        "parameter": nn.Parameter(torch.ones(2)),
        "view": base[2:8:2],
        "tied": base,
        "empty": torch.empty(0, 3),
        "meta": torch.empty(3, device="meta"),
    }
    found = table_of(tmp_path, state_dict)
    expected = by_torch("", state_dict)
    expected[-1] = (*expected[-1][:-1], 0)  # a meta tensor has no values
    assert facts(list(found.tensors)) == expected


def test_tensors_that_share_a_storage_are_counted_once(tmp_path: Path) -> None:
    shared = torch.ones(100)
    assert stored_bytes(table_of(tmp_path, {"a": shared, "b": shared, "c": torch.ones(1)}).tensors) == 404


def test_everything_that_torch_takes_for_plain_is_plain_here() -> None:
    """Else a good file would be called one that runs code."""
    assert [name for name in _get_allowed_globals() if not _PLAIN_NAME.fullmatch(name)] == []


@pytest.mark.parametrize(
    "name",
    ["torch.load", "torch.hub.load", "torch.save", "torch.nn.modules.linear.Linear", "os.system", "torch.int_repr"],
)
def test_what_torch_refuses_is_not_plain_here(name: str) -> None:
    assert name not in _get_allowed_globals()
    assert not re.fullmatch(_PLAIN_NAME, name)


def test_names_that_might_be_code_are_told_and_the_tensors_beside_them_listed(tmp_path: Path) -> None:
    settings = types.SimpleNamespace(lr=1, seen=torch.ones(3))
    found = table_of(tmp_path, {"args": settings, "net": {"w": torch.ones(2)}})
    assert found.code == ("types.SimpleNamespace",)
    assert [(tensor.key, tensor.name) for tensor in found.tensors] == [("args", "state.seen"), ("net", "w")]


class _Command:
    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> Any:
        return os.system, (self._command,)


def test_a_pickle_that_runs_a_command_is_listed_and_runs_nothing(tmp_path: Path) -> None:
    found = table_of(tmp_path, {"net": {"w": torch.ones(2)}, "x": _Command(f"touch {tmp_path / 'made'}")})
    assert found.code == (f"{os.system.__module__}.system",)
    assert not (tmp_path / "made").exists()


def test_values_that_are_missing_or_too_short_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.ones(10), "b": torch.ones(20)})
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for change, words in ((None, "no of 80 bytes"), (b"x" * 76, "76 of 80 bytes")):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                if not name.endswith("data/1"):
                    archive.writestr(name, content)
                elif change:
                    archive.writestr(name, change)
        with pytest.raises(BadCheckpointFileError, match=f"storage 1 are not whole: {words}"):
            read_tensor_table(path)


def test_a_cut_file_of_the_old_format_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.ones(1000)}, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BadCheckpointFileError, match="cut short: 5 bytes are missing"):
        read_tensor_table(path)


def test_a_payload_that_holds_itself_and_one_that_is_nested_without_end_come_to_an_end(tmp_path: Path) -> None:
    endless: dict[str, Any] = {"w": torch.ones(1)}
    endless["again"] = [endless, endless]
    assert len(table_of(tmp_path, endless).tensors) == 1
    doubling: list[Any] = [torch.ones(1)]
    for _ in range(40):
        doubling = [doubling, doubling]
    assert len(table_of(tmp_path, {"x": doubling}).tensors) == 1
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(BadCheckpointFileError, match="nested more than"):
        table_of(tmp_path, {"x": deep})


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "the format before torch 1.6"])
def test_no_damage_of_the_list_raises_anything_but_the_named_error(tmp_path: Path, zipped: bool) -> None:
    """The list is changed under a correct checksum, as somebody who forges a file would."""
    network, optimizer = trained_network()
    path = saved(
        tmp_path,
        {"net": network.state_dict(), "optim": optimizer.state_dict(), "u": torch.ones(2, dtype=torch.uint16)},
        _use_new_zipfile_serialization=zipped,
    )
    entries = {}
    if zipped:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    top = "weights/data.pkl"
    data, chance, refused = entries[top] if zipped else path.read_bytes()[:3000], random.Random(3), 0
    rest = b"" if zipped else path.read_bytes()[3000:]
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(data))] = chance.randrange(256)
        if zipped:
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in entries.items():
                    archive.writestr(name, bytes(changed) if name == top else content)
        else:
            path.write_bytes(bytes(changed) + rest)
        try:
            read_tensor_table(path)
        except BadCheckpointFileError:
            refused += 1
    assert refused > 20
