"""Batch norm whose statistics and gradients do not depend on the layout of the maps: the one that detectors use.

torch's own, in training on a CPU, is right for contiguous maps, which it sums in float64. Maps that have the channels
of a place side by side in memory (channels_last) it sums one by one in float32: over the 11,862,480 places of AASIST's
first block, 24 utterances, variances come out up to 3 % too small, and gradients up to 6 % off, differently for each
number of threads. Here they are summed in small blocks, and the blocks in float64: as near as for contiguous maps
(tests/test_batch_norm.py), by the same bits whatever the number of threads.

A batch is normalised by its own statistics, on several processes too. The running ones depend on the order of the
batches: a step moves them when those of all its batches are known (`models/running_statistics.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.running_statistics import Rule, SetAsideStatistics

# Numbers that are summed in float32 before float64 takes over; torch sums so few of them pairwise.
_BLOCK_ROWS = 512
# How many numbers are taken at a time, 8 MB: more cost memory, and fewer make threads wait for each other more often.
_CHUNK_NUMBERS = 1 << 21


class BatchNorm1d(SetAsideStatistics, nn.BatchNorm1d):
    """torch's own, which can set the statistics of its batches aside."""


class BatchNorm2d(SetAsideStatistics, nn.BatchNorm2d):
    """torch's own but for channels_last maps in training on a CPU, which are summed as the module says."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """Return `input` (batch, channels, height, width) normalised, in its layout."""
        if not (self.training and _needs_nearer_sums(input)):
            return super().forward(input)
        normalised, mean, variance = _Normalised.apply(input, self.weight, self.bias, self.eps)
        places = input.numel() // input.shape[1]
        self.take_in(mean, variance * (places / max(places - 1, 1)), Rule.IN_FLOAT64)
        result: Tensor = normalised
        return result


def _needs_nearer_sums(maps: Tensor) -> bool:
    """Return whether torch would sum in float32; maps of one channel have both layouts, and are summed in float64."""
    is_channels_last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    return maps.device.type == "cpu" and maps.dtype != torch.float64 and is_channels_last


class _Normalised(torch.autograd.Function):
    """Maps, weights and offsets to normalised maps, and the mean and variance (channels,) in float64.

    Source of the gradient: Ioffe and Szegedy 2015, arXiv 1502.03167, section 3.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = _rows(maps)
        # Near the mean, so that squares of differences from it do not cancel. Any place that is not far off would do.
        near = rows[:: max(1, len(rows) // _BLOCK_ROWS)].float().mean(dim=0)

        def differences(start: int, end: int, room: Tensor) -> tuple[Tensor, Tensor]:
            difference = torch.sub(rows[start:end], near, out=room[0])
            return difference, torch.mul(difference, difference, out=room[1])

        first, second = _sums(len(rows), rows.shape[1], differences) / len(rows)
        mean, variance = near.double() + first, (second - first.square()).clamp(min=0)
        normalised = F.batch_norm(maps, mean.float(), variance.float(), weight, bias, eps=eps)
        ctx.save_for_backward(maps, weight, mean, (variance + eps).rsqrt())
        ctx.mark_non_differentiable(mean, variance)
        return normalised, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, mean, scale = ctx.saved_tensors
        rows, upstream = _rows(maps), _rows(gradients[0].contiguous(memory_format=torch.channels_last))
        centre = mean.float()

        def products(start: int, end: int, room: Tensor) -> tuple[Tensor, Tensor]:
            difference = torch.sub(rows[start:end], centre, out=room[0])
            return upstream[start:end].float(), difference.mul_(upstream[start:end])

        of_bias, of_product = _sums(len(rows), rows.shape[1], products)
        of_weight = (of_product + (centre - mean) * of_bias) * scale  # from the mean itself, not from it in float32
        given = None
        if ctx.needs_input_grad[0]:
            slope = scale if weight is None else scale * weight.double()
            along = -slope * scale * of_weight / len(rows)
            constant = -slope * of_bias / len(rows) - along * mean
            given = torch.empty_like(maps)
            _combine(_rows(given), (upstream, slope.float()), (rows, along.float()), constant.float())
        needed = [weight is not None and ctx.needs_input_grad[place] for place in (1, 2)]
        return given, of_weight.float() if needed[0] else None, of_bias.float() if needed[1] else None, None


def _rows(maps: Tensor) -> Tensor:
    """Return channels_last maps as (places, channels), without a copy."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _sums(places: int, channels: int, terms: Callable[[int, int, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Return the sums over all places of two terms, (2, channels) in float64.

    `terms(start, end, room)` gives both of some places, each (end - start, channels) in float32; it may keep them in
    `room`, (2, end - start, channels), which is the same memory each time: new memory costs more than the arithmetic.
    """
    total = torch.zeros(2, channels, dtype=torch.float64)
    chunks = _chunks(places, channels)
    room = torch.empty(2, chunks[0][1], channels)
    for start, end in chunks:
        for position, term in enumerate(terms(start, end, room[:, : end - start])):
            whole = len(term) // _BLOCK_ROWS * _BLOCK_ROWS
            blocks = term[:whole].view(-1, _BLOCK_ROWS, channels).sum(dim=1)
            total[position] += blocks.sum(dim=0, dtype=torch.float64)
            if whole < len(term):
                total[position] += term[whole:].sum(dim=0)
    return total


def _combine(target: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], constant: Tensor) -> None:
    """Write the sum of two (rows, factor of each channel) and of a constant of each channel into rows."""
    chunks = _chunks(*target.shape)
    room = torch.empty(chunks[0][1], target.shape[1])
    for start, end in chunks:
        combined = torch.addcmul(constant, second[0][start:end], second[1], out=room[: end - start])
        torch.addcmul(combined, first[0][start:end], first[1], out=target[start:end])


def _chunks(places: int, channels: int) -> list[tuple[int, int]]:
    step = max(1, _CHUNK_NUMBERS // (channels * _BLOCK_ROWS)) * _BLOCK_ROWS
    return [(start, min(start + step, places)) for start in range(0, places, step)]
