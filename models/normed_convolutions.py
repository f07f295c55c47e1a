"""Convolutions whose weights are normed, under the names that published vocoders store: weight_g, weight_v and so on.

They compute what `torch.nn.utils.weight_norm` and `spectral_norm` compute, without hooks: the weight is a function of
the parameters wherever it is used, so that a network can be copied, traced and converted as it is. torch's newer
`parametrizations` give the same numbers under other names (`parametrizations.weight.original0`), which no public
vocoder's file has; that is why they are not used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.running_statistics import OfCall, Rule, SetsAside

_SMALLEST_NORM = 1e-12


class Norm(nn.Module, ABC):
    """What keeps a weight: as parameters and buffers of the module that uses it."""

    @abstractmethod
    def weight(self) -> Tensor:
        """Return the weight that a forward pass uses; called once in each."""


class _WeightNormed(Norm):
    """`weight_v` gives the direction of each first index, `weight_g` its length (arXiv 1602.07868)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        direction = weight.detach().clone()
        self.weight_g = nn.Parameter(_lengths(direction))
        self.weight_v = nn.Parameter(direction)

    def weight(self) -> Tensor:
        return torch._weight_norm(self.weight_v, self.weight_g, 0)


class _SpectralNormed(Norm, SetsAside):
    """`weight_orig` divided by its greatest singular value (arXiv 1802.05957).

    That is estimated by one step of power iteration in each forward pass of training, from the vectors `weight_u` and
    `weight_v`, in float32 also under autocast. So how often a discriminator was called is a part of its state. It does
    not depend on what it was called with: batches of a step that set their vectors aside all set out from the same ones
    and come to the same ones, as one large batch would.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(weight.detach().clone())
        rows, columns = weight.flatten(1).shape
        for name, size in (("weight_u", rows), ("weight_v", columns)):
            self.register_buffer(name, F.normalize(torch.randn(size), dim=0, eps=_SMALLEST_NORM))

    def weight(self) -> Tensor:
        with torch.autocast(self.weight_orig.device.type, enabled=False):
            matrix = self.weight_orig.flatten(1)
            left, right = self._one_step_further(matrix) if self.training else self._vectors(None)
            return self.weight_orig / torch.dot(left, matrix @ right)

    @property
    def numbers_a_call(self) -> int:
        """Both vectors."""
        return self.weight_u.numel() + self.weight_v.numel()

    @torch.no_grad()
    def move(self, found: OfCall) -> None:
        """Put the vectors of a forward pass in the place of those before it."""
        for vector, new in zip((self.weight_u, self.weight_v), self._vectors(found), strict=True):
            vector.copy_(new)

    @torch.no_grad()
    def _one_step_further(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        left, _ = self._vectors(self.set_aside[-1] if self.set_aside else None)
        right = F.normalize(matrix.t() @ left, dim=0, eps=_SMALLEST_NORM)
        left = F.normalize(matrix @ right, dim=0, eps=_SMALLEST_NORM)
        found = OfCall(Rule.REPLACED, torch.cat([left, right]).double())
        if self.set_aside is None:
            self.move(found)
        else:
            self.set_aside[:] = [found]  # the last one says it all
        return left, right

    def _vectors(self, found: OfCall | None) -> tuple[Tensor, Tensor]:
        """Return copies, since the next forward pass changes the vectors before this one has gone back."""
        if found is None:
            return self.weight_u.clone(), self.weight_v.clone()
        numbers, rows = found.numbers.to(self.weight_u), self.weight_u.numel()
        return numbers[:rows].clone(), numbers[rows:].clone()


class WeightNormedConv1d(_WeightNormed):
    """A one-dimensional convolution; its weights begin as those of `nn.Conv1d`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        plain = nn.Conv1d(inputs, outputs, size, groups=groups)
        super().__init__(plain.weight)
        self.bias, self._how = plain.bias, (stride, padding, dilation, groups)

    def forward(self, values: Tensor) -> Tensor:
        """Return (batch, outputs, samples) of (batch, inputs, samples)."""
        return F.conv1d(values, self.weight(), self.bias, *self._how)


class SpectralNormedConv1d(_SpectralNormed):
    """A one-dimensional convolution whose weight stretches nothing to more than its length."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        plain = nn.Conv1d(inputs, outputs, size, groups=groups)
        super().__init__(plain.weight)
        self.bias, self._how = plain.bias, (stride, padding, dilation, groups)

    def forward(self, values: Tensor) -> Tensor:
        """Return (batch, outputs, samples) of (batch, inputs, samples)."""
        return F.conv1d(values, self.weight(), self.bias, *self._how)


class SpectralNormedConv2d(_SpectralNormed):
    """A two-dimensional convolution without offsets, whose kernel is `size` by `size`."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, size).weight)
        self._stride, self._padding = stride, padding

    def forward(self, values: Tensor) -> Tensor:
        """Return (batch, outputs, rows / stride, columns / stride) of (batch, inputs, rows, columns)."""
        return F.conv2d(values, self.weight(), None, self._stride, self._padding)


class SpectralNormedLinear(_SpectralNormed):
    """A linear layer that stretches nothing to more than its length."""

    def __init__(self, inputs: int, outputs: int) -> None:
        plain = nn.Linear(inputs, outputs)
        super().__init__(plain.weight)
        self.bias = plain.bias

    def forward(self, values: Tensor) -> Tensor:
        """Return (batch, outputs) of (batch, inputs)."""
        return F.linear(values, self.weight(), self.bias)


class WeightNormedConvTranspose1d(_WeightNormed):
    """Makes a signal `stride` times as long; the first index, which is normed, is that of the inputs, as published."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int) -> None:
        plain = nn.ConvTranspose1d(inputs, outputs, size)
        super().__init__(plain.weight)
        self.bias, self._stride, self._padding = plain.bias, stride, (size - stride) // 2

    def forward(self, values: Tensor) -> Tensor:
        """Return (batch, outputs, stride * samples) of (batch, inputs, samples)."""
        return F.conv_transpose1d(values, self.weight(), self.bias, self._stride, self._padding)


class WeightNormedConv2d(_WeightNormed):
    """A convolution along the first of two dimensions: its kernel is `size` by 1."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int) -> None:
        plain = nn.Conv2d(inputs, outputs, (size, 1))
        super().__init__(plain.weight)
        self.bias, self._stride, self._padding = plain.bias, (stride, 1), (size // 2, 0)

    def forward(self, values: Tensor) -> Tensor:
        """Return (batch, outputs, rows / stride, columns) of (batch, inputs, rows, columns)."""
        return F.conv2d(values, self.weight(), self.bias, self._stride, self._padding)


def _lengths(weight: Tensor) -> Tensor:
    """Return the length of the part that each first index has, in as many dimensions as `weight`."""
    lengths: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return lengths.reshape(-1, *(1,) * (weight.dim() - 1))
