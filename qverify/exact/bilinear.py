"""The bilinear program: the definition of the quantised family written out (mathematics.md, sections 1 and 6).

Every weight and bias is a variable in its interval and is multiplied with the activations:

    z_i = sum_j w_ij x_j + b_i,    a = max(z, 0) by a big-M binary where z can have both signs,
    x = a + e,  |e| <= r_a,  x >= 0;  at a rounding point formula (32), at a MaxPool one of the numbers read

with bounds on every variable and, as valid cuts, the two ends of (1) per output. Kernel entries of a
convolution are one variable each, whatever the number of positions: exact where the relational
program is not. McCormick envelopes are the solver's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from qverify.activations.layer import Activation
from qverify.exact.builder import ProgramBuilder, Rounded, as_matrix, index_map, per_output
from qverify.exact.curve_rows import curve_rows
from qverify.exact.gathered import gathered_columns, repeated, summed
from qverify.exact.pool_rows import pool_rows
from qverify.exact.product_rows import product_rows
from qverify.exact.program import IntArray, Objective, Program
from qverify.exact.rounding_rows import IntervalEnd, Side, rounding_rows
from qverify.family.family import outer_interval
from qverify.family.rules import only_bounds
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, DynamicRounding, Input, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.rounding import chord

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.bounds.sample import SampleBounds
    from qverify.exact.maps import Maps
    from qverify.exact.program import IntArray, Objective, Program


class Bilinear:
    """The bilinear program of one sample, exact. Indices of its variables: `columns[i]` those of layer i's output,
    `weights[i]` and `biases[i]` those of its parameters.

    `cuts=False` leaves the ends of (1) out: the bare definition.
    """

    def __init__(self, maps: Maps, bounds: SampleBounds, cuts: bool = True):
        self.maps, self.bounds, self.cuts = maps, bounds, cuts
        self.family = maps.family
        self.network = maps.family.network
        self.builder = ProgramBuilder()
        self.columns: dict[int, IntArray] = {}
        self.weights: dict[int, IntArray] = {}
        self.biases: dict[int, IntArray] = {}
        for index, layer in enumerate(self.network.layers):
            if isinstance(layer, Gather):
                block = gathered_columns(self.builder, index, layer, self.columns)
            else:
                block = self.builder.add_variables(f"layer {index}", bounds.lower[index], bounds.upper[index])
            self.columns[index] = block
            BILINEAR[type(layer)](self, index, layer, block)
        self.program: Program = self.builder.build()

    def _input(self, index: int, layer: Input, block: IntArray) -> None:
        """Its box is all that is known of it."""

    def _gather(self, index: int, layer: Gather, block: IntArray) -> None:
        """Its variables are those of what it reads."""

    def _scale(self, index: int, layer: Scale, block: IntArray) -> None:
        x = self.columns[layer.inputs[0]]
        self.builder.add_rows([(np.ones(layer.size), block), (-layer.scale, x)], layer.shift, layer.shift)

    def _add(self, index: int, layer: Add, block: IntArray) -> None:
        first, second = (self.columns[i] for i in layer.inputs)
        one = np.ones(layer.size)
        self.builder.add_rows([(one, block), (-one, first), (-one, second)], 0.0, 0.0)

    def _max_pool(self, index: int, layer: MaxPool, block: IntArray) -> None:
        (source,) = layer.inputs
        ends = self.bounds.lower[source], self.bounds.upper[source]
        pool_rows(self.builder, f"largest {index}", block, self.columns[source], layer.windows, ends)

    def _product(self, index: int, layer: Product, block: IntArray) -> None:
        first, second = layer.inputs
        x, y = ((self.bounds.lower[i], self.bounds.upper[i]) for i in (first, second))
        factors = self.columns[first], self.columns[second]
        rows = self.builder.add_rows([(np.ones(layer.size), block)], 0.0, 0.0)
        self.builder.add_products(rows, *factors, -np.ones(layer.size))
        if self.cuts:
            product_rows(self.builder, block, factors, x, y)

    def _affine(self, index: int, layer: Dense | Conv, block: IntArray) -> None:
        x = self.columns[layer.inputs[0]]
        one = np.ones(layer.size)
        if index not in self.family.weight:
            constant, fixed = per_output(layer, layer.bias), as_matrix(layer, layer.weight)
            self.builder.add_rows([(-fixed, x), (one, block)], constant, constant, self._where_summed(layer, fixed))
            return
        weight = outer_interval(layer.weight.ravel(), self.family.weight[index].ravel())
        weights = self.builder.add_variables(f"weight {index}", *weight)
        biases = self.builder.add_variables(f"bias {index}", *outer_interval(layer.bias, self.family.bias[index]))
        self.weights[index], self.biases[index] = weights, biases
        rows = self.builder.add_rows([(one, block), (-one, per_output(layer, biases))], 0.0, 0.0)
        output, source, entry = self._uses(layer)
        self.builder.add_products(rows[output], weights[entry], x[source], -np.ones(len(output)))
        if self.cuts:
            self._cuts(index, layer.inputs[0], block)

    def _where_summed(self, layer: Dense | Conv, matrix: Any) -> Rounded | None:
        """The masses of sums of coefficients, where a number that the layer reads stands in several places."""
        (source,) = layer.inputs
        if not repeated(self.columns[source]):
            return None
        reach = self.bounds.reach(source)
        return Rounded(mass=abs(matrix) @ reach, terms=len(reach), reach=float(reach.sum()))

    @staticmethod
    def _uses(layer: Dense | Conv) -> tuple[IntArray, IntArray, IntArray]:
        if isinstance(layer, Conv):
            return index_map(layer)
        output, source = (a.ravel() for a in np.indices(layer.weight.shape))
        return output, source, np.arange(layer.weight.size)

    def _cuts(self, index: int, source: int, block: IntArray) -> None:
        """lo(x) <= z <= hi(x), with |x| bounded by its chord where x straddles 0."""
        slope, intercept = chord(np, self.bounds.lower[source], self.bounds.upper[source])
        matrices, reach = self.maps[index], self.bounds.reach(source)
        tilt: Any = matrices.radius @ sparse.diags(slope)
        x, one = self.columns[source], np.ones(len(block))
        spread = matrices.radius @ intercept + matrices.bias_radius
        rounded = Rounded(
            mass=matrices.absolute @ reach + abs(matrices.bias) + spread, terms=len(reach), reach=float(reach.sum())
        )
        self.builder.add_rows([(one, block), (-(matrices.weight + tilt), x)], -np.inf, matrices.bias + spread, rounded)
        self.builder.add_rows([(one, block), (-(matrices.weight - tilt), x)], matrices.bias - spread, np.inf, rounded)

    def _relu(self, index: int, layer: Relu, block: IntArray) -> None:
        source = layer.inputs[0]
        low, high = self.bounds.lower[source], self.bounds.upper[source]
        z, one = self.columns[source], np.ones(layer.size)
        a = self.builder.add_variables(f"activation {index}", np.maximum(low, 0.0), np.maximum(high, 0.0))
        self.builder.add_rows([(one, a), (-one, z)], 0.0, np.where(high <= 0, np.inf, np.maximum(0.0, -low)))
        split = np.flatnonzero((low < 0) & (high > 0))
        if len(split):
            s = self.builder.add_binaries(f"active {index}", len(split))
            one_split = np.ones(len(split))
            # a <= z - L (1 - s) and a <= U s
            self.builder.add_rows(
                [(one_split, a[split]), (-one_split, z[split]), (-low[split], s)], -np.inf, -low[split]
            )
            self.builder.add_rows([(one_split, a[split]), (-high[split], s)], -np.inf, 0.0)
        radius = np.broadcast_to(self.bounds.activation[index], layer.size)
        self.builder.add_rows([(one, block), (-one, a)], -radius, radius)

    def _activation(self, index: int, layer: Activation, block: IntArray) -> None:
        (source,) = layer.inputs
        radius = np.broadcast_to(self.bounds.activation[index], layer.size)
        ends = self.bounds.lower[source], self.bounds.upper[source]
        curve_rows(self.builder, f"curve {index}", layer, (self.columns[source], block), ends, radius)

    def _dynamic_rounding(self, index: int, layer: DynamicRounding, block: IntArray) -> None:
        raise only_bounds(layer)

    def _rounding(self, index: int, layer: Rounding, block: IntArray) -> None:
        source = layer.inputs[0]
        side = Side(
            index=index,
            block=block,
            radius=np.broadcast_to(self.bounds.activation[index], layer.size),
            y=(self.bounds.lower[index], self.bounds.upper[index]),
            most_low=self.bounds.upper[source],
            least_high=self.bounds.lower[source],
            exact=np.ones(layer.size, dtype=bool),
        )

        def entering(chosen: IntArray, sign: float) -> IntervalEnd:
            zero, columns = np.zeros(len(chosen)), self.columns[source][chosen]
            return IntervalEnd(terms=[(np.ones(len(chosen)), columns)], constant=zero, mass=zero, count=1, reach=0.0)

        rounding_rows(self.builder, self.family.points[index], side, entering)

    def combination(self, row: Array) -> Objective:
        """The objective `min row . output`."""
        last = len(self.network.layers) - 1
        return summed(self.program.variable_count, self.columns[last], row, self.bounds.reach(last))


BILINEAR: dict[type[Layer], Callable[[Bilinear, int, Any, IntArray], None]] = {
    Input: Bilinear._input,
    Dense: Bilinear._affine,
    Conv: Bilinear._affine,
    Scale: Bilinear._scale,
    Relu: Bilinear._relu,
    Activation: Bilinear._activation,
    Rounding: Bilinear._rounding,
    MaxPool: Bilinear._max_pool,
    DynamicRounding: Bilinear._dynamic_rounding,
    Add: Bilinear._add,
    Product: Bilinear._product,
    Gather: Bilinear._gather,
}
