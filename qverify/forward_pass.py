"""The forward pass, layer by layer: what each type of `layers.py` makes of numbers, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.gather import Gather
from qverify.layers import LEVELS, Add, Conv, Dense, DynamicRounding, Layer, MaxPool, Product, Relu, Rounding, Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qverify.arrays import Array


def forward(layer: Layer, inputs: list[Array]) -> Array:
    """The output (N, size) of one layer, given those of its producers."""
    return _FORWARD[type(layer)](layer, inputs)


def _relu(layer: Relu, x: Sequence[Array]) -> Array:
    y = np.maximum(x[0], 0.0)
    return y if layer.offset is None else np.maximum(y + layer.offset, 0.0)


def _activation(layer: Activation, x: Sequence[Array]) -> Array:
    y: Array = layer.curve.value(x[0])
    return y if layer.offset is None else np.asarray(layer.curve.limited(y + layer.offset))


def _rounding(layer: Rounding, x: Sequence[Array]) -> Array:
    y = x[0] if layer.offset is None else x[0] + layer.offset
    signed = np.where(x[0] > 0, np.maximum(y, 0.0), np.minimum(y, 0.0))
    y = np.where(layer.dead >= 0, np.where(abs(x[0]) <= layer.dead, 0.0, signed), y)
    if layer.step.any():
        step = np.where(layer.step > 0, layer.step, 1.0)
        y = np.where(layer.step > 0, np.rint(y / step) * step, y)
    return np.clip(y, layer.low, layer.high)


def _dynamic_rounding(layer: DynamicRounding, x: Sequence[Array]) -> Array:
    low, high = (np.asarray(end(x[0], axis=1, initial=0.0, keepdims=True)) for end in (np.min, np.max))
    step = (high - low) / LEVELS
    step = np.where(step > 0, step, 1.0)
    zero = np.clip(np.rint(-low / step), 0.0, LEVELS)
    return np.asarray(np.clip(np.rint(x[0] / step), -zero, LEVELS - zero) * step)


_FORWARD: dict[type[Layer], Callable[[Any, list[Array]], Array]] = {
    Dense: lambda layer, x: x[0] @ layer.weight.T + layer.bias,
    Conv: lambda layer, x: layer.apply(layer.weight, x[0]) + np.repeat(layer.bias, layer.positions),
    Scale: lambda layer, x: layer.scale * x[0] + layer.shift,
    Relu: _relu,
    Activation: _activation,
    Rounding: _rounding,
    MaxPool: lambda layer, x: layer.apply(x[0]),
    DynamicRounding: _dynamic_rounding,
    Add: lambda layer, x: x[0] + x[1],
    Product: lambda layer, x: x[0] * x[1],
    Gather: lambda layer, x: layer.apply(x),
}
