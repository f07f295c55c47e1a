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


class _SpectralNormed(Norm):
    """`weight_orig` divided by its greatest singular value (arXiv 1802.05957).

    That is computed in float32, also under autocast. It is estimated by one step of power iteration in each forward
    pass of training, from the vectors `weight_u` and `weight_v`: how often, and on what, a discriminator was called is
    a part of its state.
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
            if self.training:
                with torch.no_grad():
                    self.weight_v.copy_(F.normalize(matrix.t() @ self.weight_u, dim=0, eps=_SMALLEST_NORM))
                    self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=_SMALLEST_NORM))
            # Copies, since the next forward pass changes the vectors before this one has gone back.
            return self.weight_orig / torch.dot(self.weight_u.clone(), matrix @ self.weight_v.clone())


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
