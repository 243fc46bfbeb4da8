"""How much an error of one unit in every variable and row of a program can move its objective (`Gain`).

Units are those of `scaling.Scaled`; what is taken off a solver's bound is a multiple of the gain (decide.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.exact.pool_rows import candidates
from qverify.family.rules import not_in_programs
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, DynamicRounding, Input, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.rounding import TINY
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.bounds.sample import SampleBounds
    from qverify.exact.maps import Maps


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The gain G of mathematics.md, formula (20): to first order, the largest change of the objective `row . output`
    if in every layer at once each value is off by its own range (`ranges`), or by the sum of the absolute terms that it
    is made of (`magnitudes`).

    Heuristic: a margin above a solver's tolerances is taken in proportion to it (`decide.tolerance`), and no proof
    rests on it. Allows for products that underflow (rounding.py).
    """

    ranges: float
    magnitudes: float


def gain(maps: Maps, bounds: SampleBounds, row: Array) -> Gain:
    """Gain of `row . output`, row (n_out,): absolute weights propagated backwards, through Relus that can be active.

    Raises KeyError for a layer of a type that has no entry in `GAIN`.
    """
    layers = maps.family.network.layers
    weight = [np.zeros(layer.size) for layer in layers]
    weight[-1] = np.abs(row)
    ranges = magnitudes = 0.0
    for i in range(len(layers) - 1, -1, -1):
        sizes = GAIN[type(layers[i])](maps, bounds, i, weight)
        ranges += float(weight[i] @ sizes.ranges)
        magnitudes += float(weight[i] @ sizes.magnitudes)
    return Gain(ranges=ranges, magnitudes=magnitudes)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Sizes(Brief):
    """Of the outputs of one layer their ranges, and the absolute terms that each is made of, summed; both (size,)."""

    ranges: Array
    magnitudes: Array


def _own(bounds: SampleBounds, index: int) -> Sizes:
    return Sizes(ranges=bounds.upper[index] - bounds.lower[index], magnitudes=bounds.reach(index))


def _gain_input(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    return _own(bounds, index)


def _gain_affine(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    (source,) = maps.family.network.layers[index].inputs
    matrices, own, read = maps[index], _own(bounds, index), _own(bounds, source)
    reach = read.magnitudes + TINY
    spread = matrices.absolute @ read.ranges + 2.0 * (matrices.bias_radius + matrices.radius @ reach)
    size = matrices.absolute @ reach + abs(matrices.bias) + matrices.bias_radius + TINY * (1.0 + reach.sum())
    weight[source] += matrices.absolute.T @ weight[index] + TINY
    return Sizes(ranges=np.maximum(own.ranges, spread), magnitudes=size)


def _gain_relu(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    (source,) = maps.family.network.layers[index].inputs
    weight[source] += weight[index] * (bounds.upper[source] > 0)
    return _own(bounds, index)


def _gain_activation(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    layer: Any = maps.family.network.layers[index]
    if not layer.curve.linear:
        raise not_in_programs(layer)
    steepest = np.max([abs(slope + np.zeros(layer.size)) for slope in layer.curve.slopes()], axis=0)
    weight[layer.inputs[0]] += weight[index] * steepest
    return _own(bounds, index)


def _gain_rounding(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    (source,) = maps.family.network.layers[index].inputs
    weight[source] += weight[index] * (bounds.upper[index] > bounds.lower[index])
    return _own(bounds, index)


def _gain_scale(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    layer: Any = maps.family.network.layers[index]
    own = _own(bounds, index)
    weight[layer.inputs[0]] += weight[index] * abs(layer.scale) + TINY
    return Sizes(ranges=own.ranges, magnitudes=own.magnitudes + abs(layer.shift) + TINY)


def _gain_max_pool(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    layer: Any = maps.family.network.layers[index]
    (source,) = layer.inputs
    found = candidates(layer.windows, bounds.lower[source], bounds.upper[source])
    np.add.at(weight[source], layer.windows, weight[index][:, None] * found)
    return _own(bounds, index)


def _gain_add(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    for source in maps.family.network.layers[index].inputs:
        weight[source] += weight[index]
    return _own(bounds, index)


def _gain_product(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    first, second = maps.family.network.layers[index].inputs
    weight[first] += weight[index] * bounds.reach(second) + TINY
    weight[second] += weight[index] * bounds.reach(first) + TINY
    own = _own(bounds, index)
    return Sizes(ranges=own.ranges, magnitudes=bounds.reach(first) * bounds.reach(second) + TINY)


def _gain_gather(maps: Maps, bounds: SampleBounds, index: int, weight: list[Array]) -> Sizes:
    layers = maps.family.network.layers
    layer: Any = layers[index]
    for source, read in zip(layer.inputs, layer.read_of([layers[i].size for i in layer.inputs]), strict=True):
        np.add.at(weight[source], read[read >= 0], weight[index][read >= 0])
    return _own(bounds, index)


GAIN: dict[type[Layer], Callable[[Maps, SampleBounds, int, list[Array]], Sizes]] = {
    Input: _gain_input,
    Dense: _gain_affine,
    Conv: _gain_affine,
    Scale: _gain_scale,
    Relu: _gain_relu,
    Activation: _gain_activation,
    Rounding: _gain_rounding,
    MaxPool: _gain_max_pool,
    DynamicRounding: _gain_rounding,
    Add: _gain_add,
    Product: _gain_product,
    Gather: _gain_gather,
}
