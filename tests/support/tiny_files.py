"""Tiny integer files, and all that their runtimes may answer, enumerated in rational numbers."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import ceil, floor
from typing import Any

import numpy as np

from qverify.family.family import Family
from qverify.family.points import Point
from qverify.family.radii import Radii
from qverify.layers import Add, Dense, Input, Layer, Relu, Rounding
from qverify.network import Network
from tests.support.networks import dense

Array = np.ndarray
STEPS = [float(np.float32(step)) for step in (0.1, 0.25, 0.3, 0.05)]


def tiny_file(rng: np.random.Generator, residual: bool = False, relu: bool = True) -> Network:
    """Two hidden layers of coarse grids, so that ties are many; the outputs are on a grid, too."""
    layers: list[Layer] = [Input("x", (), (3,)), Rounding.on_grid("x/q", 0, (3,), STEPS[0], (-20, 20))]
    for k, size in enumerate((4, 4, 3)):
        source, wide = len(layers) - 1, layers[-1].size
        layers.append(dense(rng, f"fc{k}", source, size, wide))
        if residual and k == 1:
            layers.append(Add("sum", (source, len(layers) - 1), (4,)))
        if relu and k < 2:
            layers.append(Relu(f"relu{k}", (len(layers) - 1,), (size,)))
        layers.append(
            Rounding.on_grid(f"q{k}", len(layers) - 1, (size,), STEPS[k + 1], (-6, 6) if k < 2 else (-90, 90))
        )
    return Network(tuple(layers), "file")


def radii_of(network: Network, more: float) -> Radii:
    """Half a step and `more` of one at every rounding point."""
    points = {}
    for layer in network.layers:
        if isinstance(layer, Rounding):
            points[layer.name] = Point(
                radius=layer.step * (0.5 + more), low=(layer.low.min(), 0.0), high=(0.0, layer.high.max()), dead=-1.0
            )
    return Radii(points=points)


def all_outputs(network: Network, family: Family, x: Array) -> set[tuple[Fraction, ...]]:
    """Those of all members: every number of a grid that lies within the radius of its value, layer by layer."""
    states: set[tuple[tuple[Fraction, ...], ...]] = {(tuple(map(Fraction, x.tolist())),)}
    for index, layer in enumerate(network.layers[1:], start=1):
        after = set()
        for state in states:
            read = [state[i] for i in layer.inputs]
            for values in _ways(layer, read, family.activation.get(index)):
                after.add((*state, values))
        states = after
    return {state[-1] for state in states}


def _ways(layer: Any, read: list[tuple[Fraction, ...]], radius: Any) -> list[tuple[Fraction, ...]]:
    if isinstance(layer, Dense):
        rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        sums = [sum((Fraction(w) * v for w, v in zip(row, read[0], strict=True)), Fraction(b)) for row, b in rows]
        return [tuple(sums)]
    if isinstance(layer, Add):
        return [tuple(a + b for a, b in zip(*read, strict=True))]
    if isinstance(layer, Relu):
        return [tuple(max(v, Fraction(0)) for v in read[0])]
    options = []
    for v, s, r, low, high in zip(read[0], layer.step, radius, layer.low, layer.high, strict=True):
        step, around = Fraction(float(s)), Fraction(float(r))
        counts = range(ceil((v - around) / step), floor((v + around) / step) + 1)
        ends = Fraction(float(low)), Fraction(float(high))
        options.append(sorted({min(max(k * step, ends[0]), ends[1]) for k in counts}))
    return list(product(*options))
