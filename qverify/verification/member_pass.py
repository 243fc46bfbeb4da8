"""A true forward pass of members of a family, at positions, differentiable: what an attack descends over. Heuristic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qverify.activations.layer import Activation
from qverify.family.points import member_value
from qverify.family.rules import only_bounds
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, DynamicRounding, Input, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.bounds.affine import Affine
    from qverify.bounds.tensors import BoundModel, Bounds
    from qverify.verification.positions import Positions


def input_at(position: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The input at a position in [-1, 1] of its box."""
    return lower + (position + 1.0) * 0.5 * (upper - lower)


def member_outputs(model: BoundModel, bounds: Bounds, positions: Positions) -> Tensor:
    """Outputs (N, n_out) of the members at `positions`: a true forward pass, differentiable."""
    values: list[Tensor] = []
    for i, layer in enumerate(model.network.layers):
        values.append(layer_outputs(model, bounds, positions, i, [values[j] for j in layer.inputs]))
    return values[-1]


def layer_outputs(model: BoundModel, bounds: Bounds, positions: Positions, index: int, x: list[Tensor]) -> Tensor:
    """What one layer (by index) makes of its producers\' numbers x for the members at `positions`."""
    return FORWARD[type(model.network.layers[index])](_MemberLayer(model, bounds, positions, index), x)


@dataclass(frozen=True, eq=False, repr=False)
class _MemberLayer(Brief):
    """One layer of a forward pass of members."""

    model: BoundModel
    bounds: Bounds
    positions: Positions
    index: int

    def input(self, _: list[Tensor]) -> Tensor:
        return input_at(self.positions.entry, self.bounds.lower[0], self.bounds.upper[0])

    def affine(self, x: list[Tensor]) -> Tensor:
        return _affine(self.model.affine[self.index], self.index, x[0], self.positions)

    def scale(self, x: list[Tensor]) -> Tensor:
        scale, shift = self.model.scale[self.index]
        return scale * x[0] + shift

    def relu(self, x: list[Tensor]) -> Tensor:
        return (x[0].clamp(min=0) + self.positions.offset[self.index] * self.bounds.activation[self.index]).clamp(min=0)

    def activation(self, x: list[Tensor]) -> Tensor:
        curve, index = self.model.curves[self.index], self.index
        y: Tensor = curve.limited(curve.value(x[0]) + self.positions.offset[index] * self.bounds.activation[index])
        return y

    def rounding(self, x: list[Tensor]) -> Tensor:
        index, point = self.index, self.model.points[self.index]
        offset = self.positions.offset[index] * point.freedom(torch, self.bounds.activation[index])
        y: Tensor = member_value(torch, point, offset, x[0])
        if not bool((point.step > 0).any()):
            return y
        step = torch.where(point.step > 0, point.step, torch.ones_like(point.step))
        snapped = torch.where(point.step > 0, torch.round(y.detach() / step) * step, y.detach())
        return y + (snapped - y.detach())  # the gradient is that of y: a staircase has none

    def max_pool(self, x: list[Tensor]) -> Tensor:
        return x[0][:, self.model.windows[self.index]].amax(2)

    def dynamic_rounding(self, x: list[Tensor]) -> Tensor:
        layer: Any = self.model.network.layers[self.index]
        raise only_bounds(layer)

    def add(self, x: list[Tensor]) -> Tensor:
        return x[0] + x[1]

    def product(self, x: list[Tensor]) -> Tensor:
        return x[0] * x[1]

    def gather(self, x: list[Tensor]) -> Tensor:
        return self.model.gathered(self.index, x)


FORWARD: dict[type[Layer], Callable[[_MemberLayer, list[Tensor]], Tensor]] = {
    Input: _MemberLayer.input,
    Dense: _MemberLayer.affine,
    Conv: _MemberLayer.affine,
    Scale: _MemberLayer.scale,
    Relu: _MemberLayer.relu,
    Activation: _MemberLayer.activation,
    Rounding: _MemberLayer.rounding,
    MaxPool: _MemberLayer.max_pool,
    DynamicRounding: _MemberLayer.dynamic_rounding,
    Add: _MemberLayer.add,
    Product: _MemberLayer.product,
    Gather: _MemberLayer.gather,
}


def _affine(affine: Affine, index: int, x: Tensor, positions: Positions) -> Tensor:
    if index in positions.neuron:
        centre = affine.apply(affine.weight, x) + affine.bias
        return centre + positions.neuron[index] * (affine.apply_radius(x.abs()) + affine.bias_radius)
    if index not in positions.kernel:
        return affine.apply(affine.weight, x) + affine.spread(affine.bias)
    layer: Any = affine.layer
    kernel = affine.weight + positions.kernel[index] * affine.radius
    kernel = kernel.reshape(len(x), layer.groups, -1, layer.fan_in)
    z = torch.einsum("ngpk,ngck->ngcp", affine.patches(x), kernel).reshape(len(x), -1, layer.positions)
    return (z + (affine.bias + positions.bias[index] * affine.bias_radius).unsqueeze(2)).reshape(len(x), -1)
