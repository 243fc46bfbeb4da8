"""How much an error of one unit in every variable and row of a program can move its objective (`Gain`).

Units are those of `scaling.Scaled`; what is taken off a solver's bound is a multiple of the gain (decide.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qverify.arrays import Array
from qverify.bounds.sample import SampleBounds
from qverify.exact.relational import Maps
from qverify.layers import Add, Conv, Dense, Input, Layer, Relu, Scale
from qverify.rounding import TINY


@dataclass(frozen=True)
class Gain:
    """By how much the objective `row . output` can move at most, to first order, if in every layer at once each value
    is off by its own range (`ranges`), or by the sum of the absolute terms it is made of (`magnitudes`). What
    underflows on the way is made up for (rounding.py)."""

    ranges: float
    magnitudes: float


def gain(maps: Maps, bounds: SampleBounds, row: Array) -> Gain:
    """See `Gain`: absolute values of weights propagated backwards from `row`, through Relus that can be active."""
    layers = maps.family.network.layers
    weight = [np.zeros(layer.size) for layer in layers]
    weight[-1] = np.abs(row)
    ranges = magnitudes = 0.0
    for i in range(len(layers) - 1, -1, -1):
        width, size = GAIN[type(layers[i])](maps, bounds, i, weight)
        ranges += float(weight[i] @ width)
        magnitudes += float(weight[i] @ size)
    return Gain(ranges, magnitudes)


Sizes = tuple[Array, Array]
"""Of each output of one layer, its range and the absolute terms it is made of, summed (size,)."""


def _own(bounds: SampleBounds, index: int) -> Sizes:
    return bounds.upper[index] - bounds.lower[index], bounds.reach(index)


def _gain_input(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    return _own(bounds, index)


def _gain_affine(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    (source,) = maps.family.network.layers[index].inputs
    matrices, (width, _), (range_in, reach) = maps[index], _own(bounds, index), _own(bounds, source)
    reach = reach + TINY
    spread = matrices.absolute @ range_in + 2.0 * (matrices.bias_radius + matrices.radius @ reach)
    size = matrices.absolute @ reach + abs(matrices.bias) + matrices.bias_radius + TINY * (1.0 + reach.sum())
    weight[source] += matrices.absolute.T @ weight[index] + TINY
    return np.maximum(width, spread), size


def _gain_relu(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    (source,) = maps.family.network.layers[index].inputs
    weight[source] += weight[index] * (bounds.upper[source] > 0)
    return _own(bounds, index)


def _gain_scale(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    layer: Any = maps.family.network.layers[index]
    width, size = _own(bounds, index)
    weight[layer.inputs[0]] += weight[index] * abs(layer.scale) + TINY
    return width, size + abs(layer.shift) + TINY


def _gain_add(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    for source in maps.family.network.layers[index].inputs:
        weight[source] += weight[index]
    return _own(bounds, index)


GAIN: dict[type[Layer], Callable[[Maps, SampleBounds, int, list[Array]], Sizes]] = {
    Input: _gain_input,
    Dense: _gain_affine,
    Conv: _gain_affine,
    Scale: _gain_scale,
    Relu: _gain_relu,
    Add: _gain_add,
}
