"""Integers inside a quantised file that are computed with as they are: sums of products, and clipped ones.

The layer behind a tensor of sums (MatMulInteger, ConvInteger) gives them in units of a step, and arithmetic with
constants brings them to numbers: `integer * factor` is the layer times `factor / step`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.layers import Conv, Dense, Rounding, Scale
from qverify.onnx.graph import NetworkBuilder, Node, Point, Refusal, Tensor

if TYPE_CHECKING:
    from qverify.arrays import Array


def scaled_sums(node: Node, builder: NetworkBuilder, x: Tensor, factor: Array) -> Tensor:
    """Sums times a constant, as numbers: inside the layer's weights where it is positive and one number an output."""
    assert x.integers is not None
    try:
        factors = np.broadcast_to(factor / x.integers.step, x.shape).reshape(-1)
    except ValueError:
        raise Refusal(f"a constant of shape {factor.shape} does not broadcast to a tensor of shape {x.shape}") from None
    layer, x = builder.layers[x.layer], replace(x, integers=None, dynamic=None)
    if isinstance(layer, (Dense, Conv)) and layer.grid is not None and x.exclusive and (factors > 0).all():
        rows = factors.reshape(len(layer.weight), -1)
        if (rows == rows[:, :1]).all():
            spread = rows[:, :1].reshape(-1, *[1] * (layer.weight.ndim - 1))
            fields: dict[str, Any] = {
                "weight": layer.weight * spread,
                "grid": layer.grid * spread,
                "bias": layer.bias * rows[:, 0],
            }
            return builder.change(x, **fields)
    return builder.new(Scale, node.name, (x,), x.shape, scale=factors, shift=np.zeros(x.size))


def sums_as_floats(x: Tensor) -> Tensor:
    """A Cast of sums to floating point, where they wait for their factor."""
    assert x.integers is not None
    if x.integers.kind not in ("int32", "float32"):
        raise Refusal("it casts the integers of a quantised tensor; supported is DequantizeLinear")
    return replace(x, integers=replace(x.integers, kind="float32"))


def narrowed(node: Node, builder: NetworkBuilder, x: Tensor, low: float, high: float) -> Tensor:
    """A tensor of integers clipped to [low, high], integers too: its rounding point with narrower ends."""
    layer, grid = builder.layers[x.layer], x.integers
    if grid is None or x.dynamic is not None or x.logits is not None or not isinstance(layer, Rounding):
        raise Refusal("it clips integers that no QuantizeLinear made; put a DequantizeLinear before it")
    lower = np.maximum(layer.low, (low - grid.zero) * grid.step)
    upper = np.minimum(layer.high, (high - grid.zero) * grid.step)
    if (lower > 0).any() or (upper < 0).any():
        raise Refusal("the integers that it keeps leave out the zero point; supported are ranges that hold it")
    point = builder.points.get(x.layer)
    if x.exclusive:
        out = builder.change(x, low=lower, high=upper)
    else:
        fields = {"step": layer.step, "low": lower, "high": upper, "dead": layer.dead, "kernel": layer.kernel}
        out = builder.new(Rounding, node.name, (x,), x.shape, **fields)
    builder.points[out.layer] = Point(node.proto.output[0], grid, kernel=point is not None and point.kernel)
    return replace(out, integers=grid)
