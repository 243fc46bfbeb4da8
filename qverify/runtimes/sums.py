"""Exact integer sums in floating point: tensors (N, size) of whole numbers, and intervals of them.

Sums of products of integers are exact in any order as long as every partial sum stays below 2^24 in float32, or 2^53 in
float64; the bound of a stage on all its inputs decides which is used. Convolutions are unfolded into matrix products,
since libraries may compute them by transforms that round.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from qverify.layers import Conv, Dense
from qverify.runtimes.functions import Looked, Products
from qverify.runtimes.integers import Kind

if TYPE_CHECKING:
    from torch import Tensor

    from qverify.runtimes.integers import IntegerNetwork

_FLOAT32 = 2**24
_SHIFTED = 32
"""Entries of a depthwise kernel up to which it is applied shift by shift."""


class Sums:
    """The weighted sums of one stage: x (N, n_in) -> (N, size) without the bias; exact for integers within `reach`.

    `reach`: the largest absolute value in x. Twice the sums must be exact too, for the midpoints of intervals.
    """

    def __init__(self, layer: Dense | Conv, reach: int):
        self.layer = layer
        self.inputs = layer.fan_in if isinstance(layer, Dense) else prod(layer.in_shape)
        mass = float(abs(layer.weight).reshape(len(layer.weight), -1).sum(axis=1).max()) * reach
        mass += float(abs(layer.bias).max())
        highest = torch.get_float32_matmul_precision() == "highest"
        self.dtype = torch.float32 if 2 * mass < _FLOAT32 and highest else torch.float64
        self.weight = torch.tensor(layer.weight, dtype=self.dtype)
        self.absolute = self.weight.abs()
        bias = torch.tensor(layer.bias, dtype=self.dtype)
        self.bias = bias if isinstance(layer, Dense) else bias.repeat_interleave(layer.positions)

    def exact(self, x: Tensor) -> Tensor:
        """The sums of exact inputs."""
        return self._map(self.weight, x.to(self.dtype)) + self.bias

    def interval(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The least and largest sums over inputs between `low` and `high`."""
        low, high = low.to(self.dtype), high.to(self.dtype)
        middle = self._map(self.weight, low + high)
        reach = self._map(self.absolute, high - low)
        return (middle - reach) / 2 + self.bias, (middle + reach) / 2 + self.bias

    def influence(self) -> Tensor:
        """The sums (n_in,) of the absolute weights that each input meets."""
        x = torch.zeros(1, self.inputs, dtype=torch.float32, requires_grad=True)
        (found,) = torch.autograd.grad(self._map(self.absolute.float(), x).sum(), x)
        return found[0]

    def _map(self, weight: Tensor, x: Tensor) -> Tensor:
        layer = self.layer
        if isinstance(layer, Dense):
            return x @ weight.T
        count = len(x)
        channels, height, width = layer.in_shape
        out, kernel = layer.out_shape[0], layer.weight.shape[2:]
        if kernel == (1, 1) and layer.strides == (1, 1) and not any(layer.pads) and layer.groups == 1:
            return torch.matmul(weight.view(out, channels), x.view(count, channels, height * width)).reshape(count, -1)
        top, left, bottom, right = layer.pads
        image = F.pad(x.view(count, *layer.in_shape), (left, right, top, bottom))
        if layer.groups == channels == out and kernel[0] * kernel[1] <= _SHIFTED:
            return self._shifted(weight, image).reshape(count, -1)
        columns = F.unfold(image, kernel, layer.dilations, 0, layer.strides)
        columns = columns.view(count, layer.groups, layer.fan_in, layer.positions)
        kernels = weight.view(layer.groups, out // layer.groups, layer.fan_in)
        return torch.matmul(kernels, columns).reshape(count, -1)

    def _shifted(self, weight: Tensor, image: Tensor) -> Tensor:
        """A depthwise kernel, one entry of it after the other."""
        layer = self.layer
        assert isinstance(layer, Conv)
        _, rows, columns = layer.out_shape
        (down, right), (far, wide) = layer.strides, layer.dilations
        total = image.new_zeros((len(image), *layer.out_shape))
        height, width = (rows - 1) * down + 1, (columns - 1) * right + 1
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                top, left = i * far, j * wide
                part = image[:, :, top : top + height : down, left : left + width : right]
                total.addcmul_(part, weight[:, 0, i, j].view(1, -1, 1, 1))
        return total


class Largest:
    """The largest numbers of one stage under its windows (size, k): x (N, n_in) -> (N, size), exact, and monotone."""

    def __init__(self, places: Any, inputs: int):
        self.places, self.inputs = torch.tensor(places), inputs

    def exact(self, x: Tensor) -> Tensor:
        """The largest of exact inputs."""
        return x[:, self.places].amax(2)

    def interval(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The least and largest maxima over inputs between `low` and `high`."""
        return self.exact(low), self.exact(high)

    def influence(self) -> Tensor:
        """The windows (n_in,) that each input is in."""
        return torch.bincount(self.places.flatten(), minlength=self.inputs).float()


Made = Sums | Largest | Looked | Products
"""What makes the accumulators of a stage of the tensors that it reads."""


def sums_of(network: IntegerNetwork) -> list[Made | None]:
    """The sums, maxima, functions or products of every stage; None where a stage only copies or adds tensors."""
    sizes = [len(network.host.step), *(stage.size for stage in network.stages)]
    found: list[Made | None] = []
    for stage in network.stages:
        source = stage.sources[0]
        if stage.curve is not None and stage.step is not None:
            found.append(Looked(stage.curve, stage.entry, stage.step))
        elif stage.kind is Kind.PRODUCT:
            found.append(Products())
        elif stage.places is not None:
            found.append(Largest(stage.places, sizes[source]))
        else:
            found.append(None if stage.layer is None else Sums(stage.layer, network.reaches[source]))
    return found
