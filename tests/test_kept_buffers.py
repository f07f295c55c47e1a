"""A detached payload is the payload in other memory: the same bytes on disk, and no byte shared."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.small_state import FACTS, small_state, train
from training.checkpoints.record import Kind
from training.saving.background_copies import BackgroundCopies
from training.saving.background_saving import tensors_that_steps_change
from training.saving.kept_buffers import KeptBuffers, NoRoomError, bytes_to_keep, detach
from training.state.snapshot import take_snapshot

Payload = dict[str, Any]


def saved(payload: Payload) -> bytes:
    file = io.BytesIO()
    torch.save(payload, file)
    return file.getvalue()


def detached(payload: Payload, deferred: Iterable[Tensor], buffers: KeptBuffers | None = None) -> Payload:
    """Return a whole copy."""
    deferred = list(deferred)
    buffers = buffers or KeptBuffers()
    buffers.reserve(bytes_to_keep(deferred))
    copy, pending = detach(payload, deferred, buffers)
    BackgroundCopies(pending).make(lambda: None)
    return copy


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def tied() -> Payload:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    net[1].weight = net[0].weight
    return {"model_state_dict": net.state_dict()}


def views() -> Payload:
    base = torch.arange(64.0).reshape(8, 8)
    return {"row": base[2], "transposed": base.t(), "every second": base[:, ::2], "flat": base.view(-1)}


def settings() -> dict[str, Any]:
    return {"lr": 0.1, "betas": (0.9, 0.999), "comment": None}


def one_object_twice() -> Payload:
    same, tensor = settings(), torch.ones(3)
    return {"args": same, "config": same, "equal, not the same": settings(), "tensors": [tensor, tensor]}


def odd_tensors() -> Payload:
    return {
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.5),
        "parameter": nn.Parameter(torch.randn(3)),
        "frozen": nn.Parameter(torch.randn(3), requires_grad=False),
        "requires grad": torch.ones(2, requires_grad=True),
        "half": torch.ones(5, dtype=torch.bfloat16),
        "complex": torch.ones(2, dtype=torch.complex64),
        "truth": torch.tensor([True, False]),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.ones(1, 3).expand(5, 3),
    }


def whole_state() -> Payload:
    state = small_state()
    train(state, 3)
    return take_snapshot(state, FACTS, Kind.STEP)[0]


@pytest.mark.parametrize("make", [tied, views, one_object_twice, odd_tensors, whole_state])
@pytest.mark.parametrize("defer", [False, True], ids=["copied at once", "deferred"])
def test_a_copy_is_saved_with_the_same_bytes_and_shares_none(make: Any, defer: bool) -> None:
    payload = make()
    tensors = tensors_in(payload)
    copy = detached(payload, tensors if defer else [])
    expected = saved(payload)
    assert saved(copy) == expected
    with torch.no_grad():
        for tensor in tensors:
            torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).fill_(0x3F)
    assert saved(copy) == expected


def test_containers_that_change_later_do_not_change_the_copy() -> None:
    state = small_state()
    train(state, 3)
    payload = state.to_payload()
    copy = detached(payload, [])
    expected = saved(payload)
    train(state, 1)
    state.optimizers["optimizer"].state.clear()
    assert saved(copy) == expected


def test_only_what_steps_change_is_left_for_later() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    deferred = list(tensors_that_steps_change([net], [optimizer]))
    buffers = KeptBuffers()
    buffers.reserve(bytes_to_keep(deferred))
    _, pending = detach({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, deferred, buffers)
    later = {copy.source.data_ptr() for copy in pending}
    assert later == {p.data_ptr() for p in net.parameters()} | {
        value.data_ptr() for state in optimizer.state.values() for value in state.values()
    }


def test_the_same_tensors_meet_the_same_memory_at_the_next_save() -> None:
    buffers = KeptBuffers()
    payload = {"large": torch.randn(100_000), "small": torch.randn(3)}
    places = [[t.data_ptr() for t in detached(payload, payload.values(), buffers).values()] for _ in range(3)]
    assert places[0] == places[1] == places[2]


def test_a_state_that_grew_gets_a_larger_block() -> None:
    buffers = KeptBuffers()
    payload = {"weights": torch.randn(1000)}
    earlier = detached(payload, payload.values(), buffers)
    grown = payload | {"moments": torch.randn(1_000_000)}
    assert saved(detached(grown, grown.values(), buffers)) == saved(grown)
    assert saved(earlier) == saved(payload)


def test_touching_stops_when_it_is_told_to() -> None:
    asked: list[None] = []

    def is_over() -> bool:
        asked.append(None)
        return len(asked) > 1

    buffers = KeptBuffers()
    buffers.reserve(1 << 26)
    buffers.touch(is_over)
    assert len(asked) == 2


@pytest.mark.parametrize("pages", [1 << 40, 1 << 50], ids=["more than is free", "more than can be addressed"])
def test_want_of_memory_is_told_with_both_figures(pages: int) -> None:
    with pytest.raises(NoRoomError, match=r"it needs \d+\.\d GB and \d+\.\d GB are free"):
        KeptBuffers().reserve(pages * 4096)


@pytest.mark.parametrize(
    "tensor", [torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex64).conj()], ids=["sparse", "conjugate"]
)
def test_a_tensor_that_is_more_than_its_storage_is_refused(tensor: Tensor) -> None:
    with pytest.raises(TypeError, match="holds dense tensors"):
        detached({"tensor": tensor}, [])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no MADV_DONTFORK")
def test_a_forked_child_has_no_part_of_the_block() -> None:
    """It would hold the memory, and make the next copy duplicate every page."""
    buffers = KeptBuffers()
    buffers.reserve(1 << 24)
    place = buffers.storage(1 << 24).data_ptr()
    assert _is_mapped(place)
    child = os.fork()
    if child == 0:
        os._exit(_is_mapped(place))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _is_mapped(place: int) -> bool:
    ranges = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) ", Path("/proc/self/maps").read_text(), re.MULTILINE)
    return any(int(start, 16) <= place < int(end, 16) for start, end in ranges)
