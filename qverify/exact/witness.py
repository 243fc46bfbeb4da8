"""From a point of a program to a member of the family: mathematics.md, formulas (1) and (2), read backwards.

A point states values, a member has weights. `Target` walks through the layers of the member that is being
made (`members.realise` calls it in order): where the point wants `z_i`, the position
`t_i = (z_i - centre) / spread` in (1) at the member's own input gives the weights, clipped to [-1, 1]; the
activation offset takes up the rest. At a point of a dense relational program without relaxed coordinates
the member attains the point. Elsewhere it is a good start for a descent, and nothing is claimed: what
counts is the margin of the finished member.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.exact.bilinear import Bilinear
from qverify.family.members import PositionChoice, Recipe, Witness, realise
from qverify.layers import Conv, Relu, Rounding
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qverify.arrays import Array
    from qverify.exact.relational import Relational
    from qverify.family.family import Family


def follow(
    family: Family, program: Relational | Bilinear, *, x: Array, label: int, point: Array, row: Array
) -> tuple[Recipe, Witness]:
    """Recipe and witness of the member that follows a point (n,) of the sample's program, where `row . output` was
    minimised. Heuristic: the member need not attain the point; its own margin counts."""
    values = {i: point[columns] for i, columns in program.columns.items()}
    if isinstance(program, Bilinear):
        weights = {i: (point[w], point[program.biases[i]]) for i, w in program.weights.items()}
        recipe = Recipe(family=family, x=x, x_hat=values[0], label=label, choice=Explicit(weights, values))
        return recipe, recipe.witness()
    target = Target(family, values, row)
    witness = realise(family, x, values[0], label, target)  # fills in the positions
    return Recipe(family=family, x=x, x_hat=values[0], label=label, choice=target.choice()), witness


@dataclass(frozen=True, eq=False, repr=False)
class Explicit(Brief):
    """A `Choice` that states the weights `given[i]` of layer i, those of others being the trained ones, and outputs
    `values[i]`: a bilinear point, or all numbers of a file's runtime."""

    given: Mapping[int, tuple[Array, Array]]
    values: Mapping[int, Array]

    def weights(self, index: int, layer: Any, x: Array, radius: tuple[Array, Array]) -> tuple[Array, Array]:
        if index not in self.given:
            return layer.weight, layer.bias
        weight, bias = self.given[index]
        return weight.reshape(layer.weight.shape), bias

    def offset(self, index: int, value: Array, radius: Array) -> Array:
        return self.values[index] - value


class Target:
    """A `Choice` that aims at `values[i]`, the wanted output of layer i, and last at the smallest `row . output`."""

    def __init__(self, family: Family, values: Mapping[int, Array], row: Array):
        self._network, self._points, self._values, self._row = family.network, family.points, values, row
        self._made = PositionChoice(neuron={}, kernel={}, bias={}, offsets={})

    def choice(self) -> PositionChoice:
        """The positions taken, by layer; complete after `realise`."""
        return self._made

    def weights(self, index: int, layer: Any, x: Array, radius: tuple[Array, Array]) -> tuple[Array, Array]:
        if isinstance(layer, Conv):
            self._kernel(index, layer, x)
        else:
            self._made.neuron[index] = self._position(index, layer, x, radius)
        return self._made.weights(index, layer, x, radius)

    def _position(self, index: int, layer: Any, x: Array, radius: tuple[Array, Array]) -> Array:
        wanted = self._target(index)
        if wanted is None:
            return np.where(self._row > 0, -1.0, 1.0)
        centre = layer.weight @ x + layer.bias
        spread = radius[0] @ np.abs(x) + radius[1]
        return _ratio(wanted - centre, spread)

    def _kernel(self, index: int, layer: Conv, x: Array) -> None:
        """A kernel cannot please every position: each entry goes where most of the wanted change pulls it."""
        wanted = self._target(index)
        assert wanted is not None  # only a dense last layer has no variables
        change = wanted - layer.apply(layer.weight, x[None])[0] - np.repeat(layer.bias, layer.positions)
        if index not in self._values:  # a Relu follows: what is to be 0 there may be anything below
            change = np.where(wanted > 0, change, np.minimum(change, 0.0))
        grouped = change.reshape(layer.groups, -1, layer.positions)
        pull = np.einsum("gcp,gpk->gck", grouped, layer.patches(x[None])[0])
        self._made.kernel[index] = np.sign(pull).reshape(layer.weight.shape)
        self._made.bias[index] = np.sign(change.reshape(len(layer.bias), -1).sum(axis=1))

    def _target(self, index: int) -> Array | None:
        """Values for the output of an affine layer; of the activation that alone reads it; None: nobody reads it."""
        if index in self._values:
            return self._values[index]
        users = self._network.consumers[index]
        reader = self._network.layers[users[0]] if users else None
        if isinstance(reader, Rounding):
            return self._points[users[0]].wanting(self._values[users[0]])
        return self._values[users[0]] if isinstance(reader, Relu) else None

    def offset(self, index: int, value: Array, radius: Array) -> Array:
        self._made.offsets[index] = _ratio(self._values[index] - value, radius)
        return self._made.offset(index, value, radius)


def _ratio(wanted: Array, reach: Array) -> Array:
    """wanted / reach in [-1, 1], 0 where nothing can move."""
    return np.clip(np.divide(wanted, reach, out=np.zeros_like(wanted), where=reach > 0), -1.0, 1.0)
