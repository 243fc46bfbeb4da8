"""The relational program: weights eliminated, a MILP over inputs and activations (design.md, sections 2 and 3).

For one sample, with `lo(x) = W x - R |x| + b - r_b` and `hi(x) = W x + R |x| + b + r_b`:

    input      x_0 in its box
    Relu k     x_k >= lo(x) - r_a,   x_k >= 0                                 the convex side of (3)
               x_k <= hi(x) - L (1 - s) + r_a,   x_k <= U s + r_a,  s binary    only if hi can have both signs
               x_k in [0, r_a] where U <= 0: no row at all
    others     z with lo(x) <= z <= hi(x); y = scale x + shift; y = x + x'

where x feeds the layer. Where x_j straddles 0, |x_j| is bounded by its chord, which relaxes; `signs` names
the coordinates that get a variable for |x_j| and a binary for the sign instead, which is exact.

Exact for dense networks once no relaxed coordinate matters; for convolutions it treats the
positions as independent: sound, not exact (section 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from qverify.bounds.rounding import TINY
from qverify.exact.builder import Builder, as_matrix, per_output
from qverify.exact.program import IntArray, Program
from qverify.network import Add, Array, Conv, Dense, Network, Relu, Scale
from qverify.quantisation import Family

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


def _slack(terms: int) -> float:
    """Relative widening of sums of `terms` products computed here in plain numpy (bounds/rounding.py)."""
    return 4.0 * (terms + 32) * 2.0**-52


@dataclass(frozen=True, eq=False)
class SampleBounds:
    """Bounds of one sample as numpy: `lower[i]`, `upper[i]` (size,) per layer, `activation[i]` (size,) per Relu."""

    lower: list[Array]
    upper: list[Array]
    activation: Mapping[int, Array]


@dataclass(frozen=True, eq=False)
class Map:
    """One affine layer as matrices: centre W, radius R (CSR), b, r_b (n_out,)."""

    weight: Any
    radius: Any
    bias: Array
    bias_radius: Array


class Maps:
    """The affine layers of a family as matrices, made once and shared by all samples and threads."""

    def __init__(self, family: Family):
        self.family = family
        self.of = {i: self._map(i) for i, la in enumerate(family.network.layers) if isinstance(la, (Dense, Conv))}
        self._radius_sums: dict[int, Array] = {}

    def radius_sum(self, source: int) -> Array:
        """(size,): the radii that multiply each output of layer `source`, summed; 0 where |x_j| does not matter."""
        if source not in self._radius_sums:
            total = np.zeros(self.family.network.layers[source].size)
            for user in self.family.network.consumers[source]:
                if user in self.of:
                    total += np.asarray(self.of[user].radius.sum(axis=0)).ravel()
            self._radius_sums[source] = total
        return self._radius_sums[source]

    def _map(self, index: int) -> Map:
        layer = self.family.network.layers[index]
        assert isinstance(layer, (Dense, Conv))
        weight, bias = as_matrix(layer, layer.weight), per_output(layer, layer.bias)
        if index not in self.family.weight:
            return Map(weight, sparse.csr_matrix(weight.shape), bias, np.zeros_like(bias))
        radius = as_matrix(layer, self.family.weight[index])
        return Map(weight, radius, bias, per_output(layer, self.family.bias[index]))


@dataclass(frozen=True, eq=False)
class Magnitude:
    """A linear upper bound on |x| of one layer: `slope * x + intercept`, or a variable `column` >= 0 where exact."""

    slope: Array
    intercept: Array
    column: IntArray

    def terms(self, radius: Any, sign: float, columns: IntArray) -> tuple[list[tuple[Any, IntArray]], Array]:
        """`sign * radius @ |x|` as row terms and a constant; radius CSR (m, n), columns: where x lives."""
        terms = [(sign * (radius @ sparse.diags(self.slope)), columns)]
        exact = np.flatnonzero(self.column >= 0)
        if len(exact):
            terms.append((sign * radius[:, exact], self.column[exact]))
        return terms, sign * (radius @ self.intercept)


class Relational:
    """The relational program of one sample. `program` has a zero objective; ask `margin` or `output` for one.

    `columns[i]`: the variables of layer i, where it has any. `relaxed[i]`: coordinates of layer i
    whose |x_j| is bounded by a chord and weighted by some radius. Raises InternalError through
    `Program` if bounds are not finite.
    """

    def __init__(self, maps: Maps, bounds: SampleBounds, signs: Mapping[int, BoolArray] | None = None):
        self.maps, self.bounds, self.signs = maps, bounds, dict(signs or {})
        self.network: Network = maps.family.network
        self.builder = Builder()
        self.columns: dict[int, IntArray] = {}
        self.magnitudes: dict[int, Magnitude] = {}
        self.relaxed: dict[int, IntArray] = {}
        self.columns[0] = self.builder.variables("layer 0", bounds.lower[0], bounds.upper[0])
        last = len(self.network.layers) - 1
        self.folded = isinstance(self.network.layers[last], Dense) and not self.network.consumers[last]
        for index in range(1, last if self.folded else last + 1):
            self._layer(index)
        if self.folded:
            self._magnitude(self.network.layers[last].inputs[0])
        self.program: Program = self.builder.build()

    # -- layers -----------------------------------------------------------------------------------

    def _layer(self, index: int) -> None:
        layer = self.network.layers[index]
        if isinstance(layer, Relu):
            self._relu(index, layer)
        elif isinstance(layer, (Dense, Conv)):
            if not self._fused(index):
                self._affine(index)
        elif isinstance(layer, Scale):
            block = self._block(index)
            x = self.columns[layer.inputs[0]]
            self.builder.rows([(np.ones(layer.size), block), (-layer.scale, x)], layer.shift, layer.shift)
        elif isinstance(layer, Add):
            first, second = (self.columns[i] for i in layer.inputs)
            one = np.ones(layer.size)
            self.builder.rows([(one, self._block(index)), (-one, first), (-one, second)], 0.0, 0.0)

    def _fused(self, index: int) -> bool:
        """Whether the only reader is a Relu: then formula (3) needs no variable for this layer."""
        users = self.network.consumers[index]
        return len(users) == 1 and isinstance(self.network.layers[users[0]], Relu)

    def _block(self, index: int) -> IntArray:
        block = self.builder.variables(f"layer {index}", self.bounds.lower[index], self.bounds.upper[index])
        self.columns[index] = block
        return block

    def _affine(self, index: int) -> None:
        source = self.network.layers[index].inputs[0]
        block = self._block(index)
        everything = np.arange(len(block))
        for sign in (-1.0, 1.0):
            terms, constant = self._end(index, source, everything, sign)
            limits = (-np.inf, -constant) if sign < 0 else (-constant, np.inf)
            # lo(x) <= z reads `end - z <= -constant`, and likewise z <= hi(x).
            self.builder.rows([*terms, (-np.ones(len(block)), block)], *limits)

    def _end(self, index: int, source: int, chosen: IntArray, sign: float) -> tuple[list[tuple[Any, IntArray]], Array]:
        """One end of (1) for the chosen outputs: row terms and constants; sign -1 for lo, +1 for hi."""
        matrices = self.maps.of[index]
        columns = self.columns[source]
        terms, constant = self._magnitude(source).terms(matrices.radius[chosen], sign, columns)
        constant = constant + matrices.bias[chosen] + sign * matrices.bias_radius[chosen]
        return [(matrices.weight[chosen], columns), *terms], constant

    def _magnitude(self, source: int) -> Magnitude:
        if source in self.magnitudes:
            return self.magnitudes[source]
        low, high = self.bounds.lower[source], self.bounds.upper[source]
        straddles = (low < 0) & (high > 0)
        width = np.where(straddles, high - low, 1.0)
        slope = np.where(straddles, (high + low) / width, np.where(low >= 0, 1.0, -1.0))
        intercept = high * (np.where(straddles, -low, 0.0) / width) * (2.0 * (1.0 + _slack(1)))
        column = np.full(len(low), -1)
        exact = np.flatnonzero(straddles & self.signs.get(source, np.zeros(len(low), dtype=bool)))
        if len(exact):
            column[exact] = self._sign_variables(source, exact, (slope[exact], intercept[exact]))
            slope[exact], intercept[exact] = 0.0, 0.0
        self.relaxed[source] = np.flatnonzero(straddles & (column < 0) & (self.maps.radius_sum(source) > 0))
        self.magnitudes[source] = Magnitude(slope, intercept, column)
        return self.magnitudes[source]

    def _sign_variables(self, source: int, exact: IntArray, chord: tuple[Array, Array]) -> IntArray:
        """v_j <= |x_j| exactly, by a binary for the sign of x_j; the chord keeps the LP relaxation tight."""
        low, high = self.bounds.lower[source][exact], self.bounds.upper[source][exact]
        x, one = self.columns[source][exact], np.ones(len(exact))
        v = self.builder.variables(f"magnitude {source}", np.zeros(len(exact)), np.maximum(-low, high))
        s = self.builder.binaries(f"sign {source}", len(exact))
        self.builder.rows([(one, v), (-one, x), (-2.0 * low, s)], -np.inf, -2.0 * low)
        self.builder.rows([(one, v), (one, x), (-2.0 * high, s)], -np.inf, 0.0)
        self.builder.rows([(one, v), (-chord[0], x)], -np.inf, chord[1])
        return v

    def _relu(self, index: int, layer: Relu) -> None:
        source = layer.inputs[0]
        block = self._block(index)
        radius = np.broadcast_to(self.bounds.activation[index], layer.size)
        low, high = self.bounds.lower[source], self.bounds.upper[source]
        fused = self._fused(source) and source in self.maps.of
        gap, hi_low = np.zeros(layer.size), low.copy()
        if fused:
            some = np.flatnonzero(high > 0)
            gap[some], hi_low[some] = self._range_gap(source, some)
        # `high - gap`: the largest value of the lower end of what enters the Relu; `hi_low`: the smallest of the upper.
        lower_rows = np.flatnonzero((high > 0) & (high - gap > radius))
        upper_rows = np.flatnonzero((high > 0) & (hi_low >= 0))
        split_rows = np.flatnonzero((high > 0) & (hi_low < 0))

        def row(chosen: IntArray, sign: float) -> tuple[list[tuple[Any, IntArray]], Array]:
            if fused:
                return self._end(source, self.network.layers[source].inputs[0], chosen, sign)
            return [(np.ones(len(chosen)), self.columns[source][chosen])], np.zeros(len(chosen))

        if len(lower_rows):
            terms, constant = row(lower_rows, -1.0)
            own = (-np.ones(len(lower_rows)), block[lower_rows])
            self.builder.rows([*terms, own], -np.inf, radius[lower_rows] - constant)
        if len(upper_rows):
            terms, constant = row(upper_rows, 1.0)
            own = (-np.ones(len(upper_rows)), block[upper_rows])
            self.builder.rows([*terms, own], -radius[upper_rows] - constant, np.inf)
        if len(split_rows):
            terms, constant = row(split_rows, 1.0)
            own = (-np.ones(len(split_rows)), block[split_rows])
            s = self.builder.binaries(f"active {index}", len(split_rows))
            big = hi_low[split_rows]
            self.builder.rows([*terms, own, (big, s)], big - radius[split_rows] - constant, np.inf)
            self.builder.rows([own, (high[split_rows], s)], -radius[split_rows], np.inf)

    def _range_gap(self, index: int, chosen: IntArray) -> tuple[Array, Array]:
        """For some outputs of an affine layer: a lower bound on `hi(x) - lo(x)`, and one on `hi(x)`."""
        source = self.network.layers[index].inputs[0]
        matrices = self.maps.of[index]
        low, high = self.bounds.lower[source], self.bounds.upper[source]
        nearest = np.maximum(0.0, np.maximum(low, -high))
        weight, radius, bias_radius = matrices.weight[chosen], matrices.radius[chosen], matrices.bias_radius[chosen]
        size = np.maximum(abs(low), abs(high))
        slack, tiny = _slack(len(low)), TINY * (1.0 + size.sum())
        gap = np.maximum(0.0, 2.0 * (radius @ nearest + bias_radius) * (1.0 - slack) - tiny)
        magnitude = self._magnitude(source)
        reach = np.where(magnitude.column >= 0, 0.0, magnitude.slope)
        slope = weight + radius @ sparse.diags(reach)
        constant = matrices.bias[chosen] + bias_radius + radius @ magnitude.intercept
        mass = (abs(weight) + radius) @ size + abs(constant)
        interval = slope @ ((low + high) / 2.0) - abs(slope) @ ((high - low) / 2.0) + constant - slack * mass - tiny
        interval[~np.isfinite(interval)] = -np.inf
        return gap, np.maximum(interval, self.bounds.lower[index][chosen] + gap)

    # -- objectives -------------------------------------------------------------------------------

    def combination(self, row: Array) -> tuple[Array, float]:
        """The objective `min row . output` as (cost, offset); exact for a dense last layer (independent rows)."""
        cost = np.zeros(self.program.variables)
        last = len(self.network.layers) - 1
        if not self.folded:
            cost[self.columns[last]] = row
            return cost, 0.0
        matrices = self.maps.of[last]
        source = self.network.layers[last].inputs[0]
        magnitude = self._magnitude(source)
        radius = abs(row) @ matrices.radius
        cost[self.columns[source]] = row @ matrices.weight - radius * magnitude.slope
        exact = magnitude.column >= 0
        cost[magnitude.column[exact]] = -radius[exact]
        offset = row @ matrices.bias - abs(row) @ matrices.bias_radius - radius @ magnitude.intercept
        return cost, float(offset)

    @cached_property
    def binaries(self) -> int:
        return int(self.program.integer.sum())
