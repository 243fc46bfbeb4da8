"""The relational program: weights eliminated, a MILP over inputs and activations (mathematics.md, sections 2 and 3).

For one sample, with `lo(x) = W x - R |x| + b - r_b` and `hi(x) = W x + R |x| + b + r_b`:

    input      x_0 in its box
    Relu k     x_k >= lo(x) - r_a,   x_k >= 0                                 the convex side of (3)
               x_k <= hi(x) - L (1 - s) + r_a,   x_k <= U s + r_a,  s binary    only if hi can have both signs
               x_k in [0, r_a] where U <= 0: no row at all
    rounding   y >= min(lo(x) - r, high), y <= max(hi(x) + r, low), y in [low, high]: formula (32), a binary a kink
    Activation y = f(z), piecewise linear: a binary for each of its breaks (curve_rows.py)
    MaxPool    y = the largest of some x_i: a binary for each that may be it (pool_rows.py)
    Product    four rows around y = x x', which relax it (product_rows.py)
    Gather     the variables that it reads (gathered.py)
    others     z with lo(x) <= z <= hi(x); y = scale x + shift; y = x + x'

where x feeds the layer. Where x_j straddles 0, |x_j| is bounded by its chord, which relaxes; `exact` names
the coordinates that get a variable for |x_j| and a binary for the sign instead, which is exact.

Exact for dense networks once no relaxed coordinate matters; for convolutions it treats the
positions as independent: sound, not exact (mathematics.md, section 6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from qverify.activations.layer import Activation
from qverify.exact.builder import ProgramBuilder
from qverify.exact.curve_rows import curve_rows
from qverify.exact.gathered import gathered_columns, summed
from qverify.exact.maps import Magnitude, Maps
from qverify.exact.overstated import GRID, SIGN, ZERO, Exactly
from qverify.exact.pool_rows import pool_rows
from qverify.exact.product_rows import product_rows
from qverify.exact.program import BoolArray, IntArray, Objective, Program
from qverify.exact.rounding_rows import IntervalEnd, Side, grid_rows, rounding_rows
from qverify.family.rules import only_bounds
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, DynamicRounding, Input, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.rounding import allowance, chord

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.bounds.sample import SampleBounds
    from qverify.family.points import Point
    from qverify.network import Network


class Relational:
    """The relational program of one sample. `program` has no objective; ask `combination` for one.

    Sound in floating point: every member of the family, in exact arithmetic, is a point of it, since limits are moved
    outwards by what was rounded in making a row. `columns[i]`: the variables of layer i, where it has any.
    `relaxed[i]`: coordinates of layer i whose |x_j| is bounded by a chord and weighted by some radius. Raises
    InternalError through `Program` if bounds are not finite.

    `exact`: the coordinates that have binaries from the beginning (overstated.py). `clear`: for its points alone, and
    no bound. Of rounding points that keep 0, values below and above the jump at `dead` are apart, by this share of the
    radius, so that a member follows a point on the side that was meant (`Point.cleared`).
    """

    def __init__(
        self,
        maps: Maps,
        bounds: SampleBounds,
        exact: Exactly | None = None,
        clear: float = 0.0,
    ):
        self.maps, self.bounds, self.exact, self.clear = maps, bounds, exact or Exactly(), clear
        self.network: Network = maps.family.network
        self.builder = ProgramBuilder()
        self.columns: dict[int, IntArray] = {}
        self.magnitudes: dict[int, Magnitude] = {}
        self.relaxed: dict[int, IntArray] = {}
        last = len(self.network.layers) - 1
        self.folded = isinstance(self.network.layers[last], Dense) and not self.network.consumers[last]
        for index, layer in enumerate(self.network.layers[: last if self.folded else last + 1]):
            RELATIONAL[type(layer)](self, index, layer)
        if self.folded:
            self._magnitude(self.network.layers[last].inputs[0])
        self.program: Program = self.builder.build()

    # -- layers -----------------------------------------------------------------------------------

    def _input(self, index: int, layer: Input) -> None:
        self._block(index)

    def _affine(self, index: int, layer: Dense | Conv) -> None:
        if self._fused(index):
            return
        block = self._block(index)
        own = (-np.ones(len(block)), block)
        for sign in (-1.0, 1.0):
            end = self._interval_end(index, np.arange(len(block)), sign)
            # lo(x) <= z reads `end - z <= -constant`, and likewise z <= hi(x).
            below, above = (-np.inf, -end.constant) if sign < 0 else (-end.constant, np.inf)
            self.builder.add_rows([*end.terms, own], below, above, end.rounded(0.0))

    def _scale(self, index: int, layer: Scale) -> None:
        x = self.columns[layer.inputs[0]]
        self.builder.add_rows([(np.ones(layer.size), self._block(index)), (-layer.scale, x)], layer.shift, layer.shift)

    def _add(self, index: int, layer: Add) -> None:
        first, second = (self.columns[i] for i in layer.inputs)
        one = np.ones(layer.size)
        self.builder.add_rows([(one, self._block(index)), (-one, first), (-one, second)], 0.0, 0.0)

    def _max_pool(self, index: int, layer: MaxPool) -> None:
        (source,) = layer.inputs
        ends = self.bounds.lower[source], self.bounds.upper[source]
        x, block = self.columns[source], self._block(index)
        pool_rows(self.builder, f"largest {index}", block, x, layer.windows, ends)

    def _product(self, index: int, layer: Product) -> None:
        first, second = layer.inputs
        factors, (x, y) = (self.columns[first], self.columns[second]), (self._ends(first), self._ends(second))
        product_rows(self.builder, self._block(index), factors, x, y)

    def _ends(self, index: int) -> tuple[Array, Array]:
        return self.bounds.lower[index], self.bounds.upper[index]

    def _activation(self, index: int, layer: Activation) -> None:
        (source,) = layer.inputs
        radius = np.broadcast_to(self.bounds.activation[index], layer.size)
        variables = self.columns[source], self._block(index)
        ends = self.bounds.lower[source], self.bounds.upper[source]
        curve_rows(self.builder, f"curve {index}", layer, variables, ends, radius)

    def _gather(self, index: int, layer: Gather) -> None:
        self.columns[index] = gathered_columns(self.builder, index, layer, self.columns)

    def _fused(self, index: int) -> bool:
        """Whether the only reader is a Relu or a rounding point: then formula (3) or (32) needs no variable for this
        layer."""
        users = self.network.consumers[index]
        return len(users) == 1 and isinstance(self.network.layers[users[0]], (Relu, Rounding))

    def _block(self, index: int) -> IntArray:
        block = self.builder.add_variables(f"layer {index}", self.bounds.lower[index], self.bounds.upper[index])
        self.columns[index] = block
        return block

    def _interval_end(self, index: int, chosen: IntArray, sign: float) -> IntervalEnd:
        """One end of (1) for the chosen outputs of an affine layer; sign -1 for lo, +1 for hi."""
        (source,) = self.network.layers[index].inputs
        matrices, columns, magnitude = self.maps[index], self.columns[source], self._magnitude(source)
        radius, bias, bias_radius = matrices.radius[chosen], matrices.bias[chosen], matrices.bias_radius[chosen]
        terms, constant = magnitude.row_terms(radius, sign, columns)
        reach = self.bounds.reach(source)
        mass = matrices.absolute[chosen] @ reach + abs(bias) + bias_radius + abs(constant)
        constant = constant + bias + sign * bias_radius
        terms = [(matrices.weight[chosen], columns), *terms]
        return IntervalEnd(terms=terms, constant=constant, mass=mass, count=len(reach), reach=float(reach.sum()))

    def _magnitude(self, source: int) -> Magnitude:
        if source in self.magnitudes:
            return self.magnitudes[source]
        low, high = self.bounds.lower[source], self.bounds.upper[source]
        straddles = (low < 0) & (high > 0)
        slope, intercept = chord(np, low, high)
        column = np.full(len(low), -1)
        exact = np.flatnonzero(straddles & self.exact.of(SIGN, source, len(low)))
        if len(exact):
            column[exact] = self._sign_variables(source, exact, slope[exact], intercept[exact])
            slope[exact], intercept[exact] = 0.0, 0.0
        self.relaxed[source] = np.flatnonzero(straddles & (column < 0) & (self.maps.radius_sum(source) > 0))
        self.magnitudes[source] = Magnitude(slope=slope, intercept=intercept, column=column)
        return self.magnitudes[source]

    def _sign_variables(self, source: int, exact: IntArray, slope: Array, intercept: Array) -> IntArray:
        """v_j <= |x_j| exactly, by a binary for the sign of x_j; the chord keeps the linear relaxation tight."""
        low, high = self.bounds.lower[source][exact], self.bounds.upper[source][exact]
        x, one = self.columns[source][exact], np.ones(len(exact))
        v = self.builder.add_variables(f"magnitude {source}", np.zeros(len(exact)), np.maximum(-low, high))
        s = self.builder.add_binaries(f"sign {source}", len(exact))
        self.builder.add_rows([(one, v), (-one, x), (-2.0 * low, s)], -np.inf, -2.0 * low)
        self.builder.add_rows([(one, v), (one, x), (-2.0 * high, s)], -np.inf, 0.0)
        self.builder.add_rows([(one, v), (-slope, x)], -np.inf, intercept)
        return v

    def _relu(self, index: int, layer: Relu) -> None:
        source = layer.inputs[0]
        block = self._block(index)
        radius = np.broadcast_to(self.bounds.activation[index], layer.size)
        high = self.bounds.upper[source]
        gap, hi_low = self._entering(source, high > 0)
        # `high - gap`: the largest value of the lower end of what enters the Relu; `hi_low`: the smallest of the upper.
        lower_rows = np.flatnonzero((high > 0) & (high - gap > radius))
        upper_rows = np.flatnonzero((high > 0) & (hi_low >= 0))
        split_rows = np.flatnonzero((high > 0) & (hi_low < 0))

        def end(chosen: IntArray, sign: float) -> IntervalEnd:
            return self._end_entering(source, chosen, sign)

        def own(chosen: IntArray) -> tuple[Array, IntArray]:
            return -np.ones(len(chosen)), block[chosen]

        if len(lower_rows):
            lo, r = end(lower_rows, -1.0), radius[lower_rows]
            self.builder.add_rows([*lo.terms, own(lower_rows)], -np.inf, r - lo.constant, lo.rounded(r))
        if len(upper_rows):
            hi, r = end(upper_rows, 1.0), radius[upper_rows]
            self.builder.add_rows([*hi.terms, own(upper_rows)], -r - hi.constant, np.inf, hi.rounded(r))
        if len(split_rows):
            hi, r, big = end(split_rows, 1.0), radius[split_rows], hi_low[split_rows]
            s = self.builder.add_binaries(f"active {index}", len(split_rows))
            rounded = hi.rounded(r + abs(big))
            self.builder.add_rows([*hi.terms, own(split_rows), (big, s)], big - r - hi.constant, np.inf, rounded)
            self.builder.add_rows([own(split_rows), (high[split_rows], s)], -r, np.inf)

    def _dynamic_rounding(self, index: int, layer: DynamicRounding) -> None:
        raise only_bounds(layer)

    def _rounding(self, index: int, layer: Rounding) -> None:
        source = layer.inputs[0]
        block = self._block(index)
        point, y = self.point(index), (self.bounds.lower[index], self.bounds.upper[index])
        gap, hi_low = self._entering(source, y[1] > y[0])
        side = Side(
            index=index,
            block=block,
            radius=np.broadcast_to(self.bounds.activation[index], layer.size),
            y=y,
            most_low=self.bounds.upper[source] - gap,
            least_high=hi_low,
            exact=self.exact.of(ZERO, index, layer.size),
        )
        rounding_rows(self.builder, point, side, lambda chosen, sign: self._end_entering(source, chosen, sign))
        grid_rows(self.builder, point.step, side, self.exact.of(GRID, index, layer.size))

    def point(self, index: int) -> Point:
        """The rounding point of a layer, as this program has it."""
        point = self.maps.family.points[index]
        return point.cleared(self.clear) if self.clear else point

    def entering(self, index: int, chosen: IntArray, sign: float, point: Array) -> Array:
        """At a point (n,) of the program, an end of what enters an activation: lo by sign -1, hi by +1. As rounded."""
        end = self._end_entering(self.network.layers[index].inputs[0], chosen, sign)
        terms = (m @ point[columns] if m.ndim > 1 else m * point[columns] for m, columns in end.terms)
        return sum(terms, end.constant)

    def _entering(self, source: int, wanted: BoolArray) -> tuple[Array, Array]:
        """Of what enters an activation from layer `source`: lower bounds on `hi - lo` and `hi`, where wanted."""
        low = self.bounds.lower[source]
        gap, hi_low = np.zeros(len(low)), low.copy()
        if self._is_fused(source):
            some = np.flatnonzero(wanted)
            gap[some], hi_low[some] = self._range_gap(source, some)
        return gap, hi_low

    def _is_fused(self, source: int) -> bool:
        return self._fused(source) and isinstance(self.network.layers[source], (Dense, Conv))

    def _end_entering(self, source: int, chosen: IntArray, sign: float) -> IntervalEnd:
        """One end, by sign -1 or +1, of what enters an activation from layer `source`: of (1), or its variables."""
        if self._is_fused(source):
            return self._interval_end(source, chosen, sign)
        zero, columns = np.zeros(len(chosen)), self.columns[source][chosen]
        return IntervalEnd(terms=[(np.ones(len(chosen)), columns)], constant=zero, mass=zero, count=1, reach=0.0)

    def _range_gap(self, index: int, chosen: IntArray) -> tuple[Array, Array]:
        """For some outputs of an affine layer: a lower bound on `hi(x) - lo(x)`, and one on `hi(x)`."""
        source = self.network.layers[index].inputs[0]
        matrices = self.maps[index]
        low, high = self.bounds.lower[source], self.bounds.upper[source]
        nearest = np.maximum(0.0, np.maximum(low, -high))
        weight, radius, bias_radius = matrices.weight[chosen], matrices.radius[chosen], matrices.bias_radius[chosen]
        reach, magnitude = self.bounds.reach(source), self._magnitude(source)
        total = float(reach.sum())
        width = 2.0 * (radius @ nearest + bias_radius)
        gap = np.maximum(0.0, width - allowance(width, len(low), total))
        slope = weight + radius @ sparse.diags(np.where(magnitude.column >= 0, 0.0, magnitude.slope))
        lift = radius @ magnitude.intercept
        mass = matrices.absolute[chosen] @ reach + abs(matrices.bias[chosen]) + bias_radius + lift
        interval = slope @ ((low + high) / 2.0) - abs(slope) @ ((high - low) / 2.0)
        interval += matrices.bias[chosen] + bias_radius + lift - allowance(mass, len(low), total)
        interval[~np.isfinite(interval)] = -np.inf
        wide = np.nextafter(self.bounds.lower[index][chosen] + gap, -np.inf)
        if index in self.bounds.least_high:
            wide = np.maximum(wide, self.bounds.least_high[index][chosen])
        return gap, np.maximum(interval, wide)

    # -- objectives -------------------------------------------------------------------------------

    def combination(self, row: Array) -> Objective:
        """The objective `min row . output`; exact for a dense last layer (independent rows).

        The rounding allowance of folding that layer is taken off the offset: the objective is nowhere above the true
        one, so its minimum is a sound bound.
        """
        last, count = len(self.network.layers) - 1, self.program.variable_count
        if not self.folded:
            return summed(count, self.columns[last], row, self.bounds.reach(last))
        matrices = self.maps[last]
        source = self.network.layers[last].inputs[0]
        magnitude, size, reach = self._magnitude(source), abs(row), self.bounds.reach(source)
        radius = size @ matrices.radius
        cost = np.zeros(count)
        np.add.at(cost, self.columns[source], row @ matrices.weight - radius * magnitude.slope)
        exact = magnitude.column >= 0
        cost[magnitude.column[exact]] = -radius[exact]
        lift = float(radius @ magnitude.intercept)
        mass = float(size @ matrices.absolute @ reach + size @ (abs(matrices.bias) + matrices.bias_radius)) + lift
        offset = float(row @ matrices.bias - size @ matrices.bias_radius) - lift
        return Objective(cost, offset - allowance(mass, len(reach) + len(row), float(reach.sum())))


RELATIONAL: dict[type[Layer], Callable[[Relational, int, Any], None]] = {
    Input: Relational._input,
    Dense: Relational._affine,
    Conv: Relational._affine,
    Scale: Relational._scale,
    Relu: Relational._relu,
    Activation: Relational._activation,
    Rounding: Relational._rounding,
    MaxPool: Relational._max_pool,
    DynamicRounding: Relational._dynamic_rounding,
    Add: Relational._add,
    Product: Relational._product,
    Gather: Relational._gather,
}
