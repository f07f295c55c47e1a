"""Adds the gradients of several processes in the tree of a step's batches, each process a slice of them.

Buckets of neighbouring parameters go all to all: of each bucket every process gets one slice from all, adds it up in
the order of the tree, and all gather the sums. So each number is sent as often as by the ring of an `all_reduce`, and
unlike there the order of the additions does not depend on how many processes there are. A bucket leaves as soon as
backward is through with its parameters, and those before it have left: while earlier layers are computed, the later
ones are under way. `MOST_UNDER_WAY` of them at a time bound the memory.

A process whose part of a step is no complete subtree sends more than one sum a bucket: of six batches on two processes
two, of powers of two never more than one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from training.data.shares import Share
from training.loop.batch_tree import Node, nodes_of, sum_of

BUCKET_BYTES = 25 << 20
"""As large as those of DistributedDataParallel: large enough for the bandwidth, small enough to leave early."""
MOST_UNDER_WAY = 3
_NOTHING = -0.0  # x + -0.0 has the bits of x for every x, and x + 0.0 has not for -0.0


@dataclass
class Exchange:
    """What processes of a group, of which this is number `share.index`, exchange gradients by; kept while a run trains.

    `bytes_sent` counts what left this process so far. Memory that a bucket is done with is that of the next one, in
    this step or a later one: new memory comes from the system page by page, which costs more than the sum.
    """

    group: Any
    share: Share
    bytes_sent: int = 0
    _free: list[Tensor] = field(default_factory=list)
    _lent: list[tuple[Tensor, list[Tensor]]] = field(default_factory=list)

    def begin(self, parameters: Sequence[Tensor], num_batches: int) -> Exchanged:
        """Return what takes the gradients of one update over `num_batches`; those of the update before are let go."""
        for memory, holding in self._lent:
            for parameter in holding:  # of another phase, into which a backward of this one may still add
                parameter.grad = None
            self.give_back(memory)
        self._lent = []
        return Exchanged(self, parameters, num_batches)

    def taken(self, like: Tensor, *shape: int) -> Tensor:
        """Return memory of the type and device of `like`, which somebody may have written to."""
        numbers = math.prod(shape)
        fitting = (one for one in self._free if _kind(one) == _kind(like) and one.numel() >= numbers)
        found = min(fitting, key=Tensor.numel, default=None)
        if found is None:
            found = like.new_empty(numbers)
        else:
            self._free = [one for one in self._free if one is not found]
        return found[:numbers].view(shape)

    def give_back(self, *memory: Tensor) -> None:
        """Take back whole what `taken` gave; nothing may read it any more."""
        self._free += [one if one._base is None else one._base for one in memory]

    def lend(self, memory: Tensor, holding: list[Tensor]) -> None:
        """Let the gradients of parameters lie in what `taken` gave until the next update begins."""
        self._lent.append((memory, holding))


@dataclass
class _Bucket:
    """Neighbouring parameters, as (index, where they begin), and room for the sums of each of this process's nodes.

    `room` (nodes, processes, numbers a slice) ends with a number for each parameter: how often it has a gradient.
    """

    places: list[tuple[int, int]]
    numbers: int
    missing: int
    room: Tensor | None = None
    present: list[list[float]] = field(default_factory=list)


class Exchanged:
    """The gradients of one step on their way; `put` each parameter's once, then `complete`."""

    def __init__(self, exchange: Exchange, parameters: Sequence[Tensor], num_batches: int) -> None:
        self._exchange, self._parameters, self._num_batches = exchange, parameters, num_batches
        share = exchange.share
        self._nodes: list[list[Node]] = [
            nodes_of(share.of_process(index, num_batches), num_batches) for index in range(share.count)
        ]
        self._buckets = _buckets_of(parameters)
        self._bucket_of = {index: bucket for bucket in self._buckets for index, _ in bucket.places}
        self._waiting = deque(self._buckets)
        self._sent: deque[tuple[_Bucket, Tensor, Any]] = deque()
        self._gathered: deque[tuple[_Bucket, Tensor, Any]] = deque()
        self._is_certain = [False] * len(parameters)

    @torch.no_grad()
    def put(self, index: int, sums: Sequence[Tensor | None]) -> None:
        """Take over a parameter's gradient in each of this process's nodes; None where no batch reached it.

        It is copied: its memory can go.
        """
        bucket = self._bucket_of[index]
        room = self._room_of(bucket).flatten(1)
        place, begin = next((place, at) for place, (found, at) in enumerate(bucket.places) if found == index)
        parameter = self._parameters[index]
        for row, present, found in zip(room, bucket.present, sums, strict=True):
            taken = row[begin : begin + parameter.numel()].view(parameter.shape)
            taken.fill_(_NOTHING) if found is None else taken.copy_(found)
            present[place] = float(found is not None)
        self._is_certain[index] = any(found is not None for found in sums)
        bucket.missing -= 1
        while self._waiting and not self._waiting[0].missing:
            self._send(self._waiting.popleft())

    @torch.no_grad()
    def complete(self) -> None:
        """Give every parameter the gradient of the whole step, None where no batch of any process reached it.

        It lies in the memory that it came in, until the next update begins.
        """
        if not self._nodes[self._exchange.share.index]:
            for index in range(len(self._parameters)):
                self.put(index, [])
        while self._sent:
            self._add_up()
        while self._gathered:
            self._hand_out()

    def _room_of(self, bucket: _Bucket) -> Tensor:
        if bucket.room is None:
            first = self._parameters[bucket.places[0][0]]
            own, count = len(self._nodes[self._exchange.share.index]), self._exchange.share.count
            size = math.ceil((bucket.numbers + len(bucket.places)) / count)
            bucket.room = self._exchange.taken(first, own, count, size)
            bucket.present = [[0.0] * len(bucket.places) for _ in range(own)]
        return bucket.room

    def _send(self, bucket: _Bucket) -> None:
        """Send a bucket on its way, and lead those before it one step further."""
        room = self._room_of(bucket)
        own, count, size = room.shape
        if own:
            rows = room.flatten(1)
            rows[:, bucket.numbers : bucket.numbers + len(bucket.places)] = room.new_tensor(bucket.present)
            rows[:, bucket.numbers + len(bucket.places) :] = _NOTHING
        parts = [len(nodes) * size for nodes in self._nodes]
        received, sent = self._exchange.taken(room, sum(parts)), room.transpose(0, 1).contiguous().flatten()
        work = dist.all_to_all_single(received, sent, parts, [own * size] * count, self._exchange.group, async_op=True)
        self._count(own * size * (count - 1) * room.element_size())
        bucket.room = None
        self._sent.append((bucket, received.view(-1, size), (work, sent, room)))
        if len(self._sent) > MOST_UNDER_WAY:
            self._add_up()

    def _add_up(self) -> None:
        """Add up this process's slice of the bucket that left first, and send it to all."""
        bucket, received, (work, _, room) = self._sent.popleft()
        work.wait()
        self._exchange.give_back(room)
        nodes = [node for of_process in self._nodes for node in of_process]
        own = sum_of(zip(nodes, received, strict=True), self._num_batches, lambda left, right: left.add_(right))
        whole = self._exchange.taken(own, len(own) * self._exchange.share.count)
        gathering = _all_gather()(whole, own, self._exchange.group, async_op=True)
        self._count(own.numel() * (self._exchange.share.count - 1) * own.element_size())
        self._gathered.append((bucket, whole, (gathering, own)))
        if len(self._gathered) > MOST_UNDER_WAY:
            self._hand_out()

    def _hand_out(self) -> None:
        """Give the parameters of the bucket that was gathered first their gradients."""
        bucket, whole, (work, own) = self._gathered.popleft()
        work.wait()
        is_certain = [self._is_certain[index] for index, _ in bucket.places]
        counts = whole[bucket.numbers :].tolist() if not all(is_certain) else []
        for place, (index, begin) in enumerate(bucket.places):
            parameter = self._parameters[index]
            found = whole[begin : begin + parameter.numel()].view(parameter.shape)
            parameter.grad = found if is_certain[place] or counts[place] else None
        self._exchange.give_back(own)
        self._exchange.lend(whole, [self._parameters[index] for index, _ in bucket.places])

    def _count(self, num_bytes: int) -> None:
        self._exchange.bytes_sent += num_bytes


def _kind(tensor: Tensor) -> tuple[torch.dtype, torch.device]:
    return tensor.dtype, tensor.device


def _buckets_of(parameters: Sequence[Tensor]) -> list[_Bucket]:
    """Return the parameters from the last one on, as backward mostly comes by them, in buckets of one type each."""
    buckets: list[_Bucket] = []
    kind: tuple[torch.dtype, torch.device] | None = None
    for index in reversed(range(len(parameters))):
        parameter = parameters[index]
        is_full = not buckets or buckets[-1].numbers * parameter.element_size() >= BUCKET_BYTES
        if is_full or kind != _kind(parameter):
            buckets.append(_Bucket([], 0, 0))
            kind = _kind(parameter)
        bucket = buckets[-1]
        bucket.places.append((index, bucket.numbers))
        bucket.numbers += parameter.numel()
        bucket.missing += 1
    return buckets


def _all_gather() -> Callable[..., Any]:
    """Return torch's gathering into one tensor, which has another name since 2.14."""
    found: Callable[..., Any] = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    return found
