"""The rows of a piecewise linear activation in a program (mathematics.md, section 4.7): f(z) - r <= y <= f(z) + r.

With breaks t_1 < ... < t_k inside the bounds [L, U] on z, pieces of slopes s_0, ..., s_k, and t_0 = L, t_(k+1) = U,

    z = L + sum d_i,    f(L) - r  <=  y - sum s_i d_i  <=  f(L) + r,    0 <= d_i <= t_(i+1) - t_i,
    d_(i-1) >= (t_i - t_(i-1)) b_i,    d_i <= (t_(i+1) - t_i) b_i,    b_i binary,  i = 1, ..., k

so that a piece is begun only once the one before is full: exact, and ideal for one neuron. Without a break inside one
row is enough. What an error leaves of the range of f is in the bounds of y.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.exact.builder import Rounded
from qverify.family.rules import not_in_programs

if TYPE_CHECKING:
    from qverify.activations.layer import Activation
    from qverify.arrays import Array
    from qverify.exact.builder import ProgramBuilder
    from qverify.exact.program import IntArray

_NEAR = 2.0**-48
"""What breaks and their distances may be off by, relative to the breaks."""


def curve_rows(
    builder: ProgramBuilder,
    name: str,
    layer: Activation,
    variables: tuple[IntArray, IntArray],
    ends: tuple[Array, Array],
    radius: Array,
) -> None:
    """Add the rows. `variables`: z and y (n,); `ends`: bounds on z; `radius` (n,): of y; `name`: of new variables.

    Raises UsageError for a function that is not piecewise linear.
    """
    if not layer.curve.linear:
        raise not_in_programs(layer)
    lower, upper = ends
    breaks = np.stack([at + np.zeros(layer.size) for at in layer.curve.breaks()], axis=1)
    inside = (breaks > lower[:, None]) & (breaks < upper[:, None])
    inside[:, 1:] &= breaks[:, 1:] > breaks[:, :-1]  # two breaks in one place are one
    for count in np.unique(inside.sum(axis=1)).tolist():
        chosen = np.flatnonzero(inside.sum(axis=1) == count)
        edges = np.sort(np.where(inside[chosen], breaks[chosen], np.inf), axis=1)[:, :count]
        edges = np.concatenate([lower[chosen, None], edges, upper[chosen, None]], axis=1)
        _pieces(
            builder, f"{name} {count + 1}", layer, (variables[0][chosen], variables[1][chosen]), edges, radius, chosen
        )


def _pieces(
    builder: ProgramBuilder,
    name: str,
    layer: Activation,
    variables: tuple[IntArray, IntArray],
    edges: Array,
    radius: Array,
    chosen: IntArray,
) -> None:
    """The rows of the elements `chosen` (m,), which have the edges (m, k + 2) each."""
    (z, y), curve, count = variables, layer.curve.taken(chosen), edges.shape[1] - 1
    one, r, lower = np.ones(len(z)), radius[chosen], edges[:, 0]
    middles = edges[:, :-1] + 0.5 * (edges[:, 1:] - edges[:, :-1])
    slopes = np.stack([curve.slope(middles[:, k]) for k in range(count)], axis=1)
    start = curve.value(lower)
    reach = abs(edges).max(axis=1)
    mass = abs(start) + abs(slopes).max(axis=1) * 4.0 * reach + r + curve.allowance(one) / curve.function.error
    rounded = Rounded(mass=mass, terms=count + 2, reach=float(reach.sum()))
    if count == 1:
        constant = start - slopes[:, 0] * lower
        builder.add_rows([(one, y), (-slopes[:, 0], z)], constant - r, constant + r, rounded)
        return
    lengths = edges[:, 1:] - edges[:, :-1]
    off = _NEAR * (abs(edges[:, 1:]) + abs(edges[:, :-1]))
    longest, shortest = lengths + off, np.maximum(lengths - off, 0.0)
    parts = [builder.add_variables(f"{name} part {k}", 0.0 * lower, longest[:, k]) for k in range(count)]
    ones: list[tuple[Any, IntArray]] = [(-one, part) for part in parts]
    builder.add_rows([(one, z), *ones], lower, lower)
    sloped: list[tuple[Any, IntArray]] = [(-slopes[:, k], part) for k, part in enumerate(parts)]
    builder.add_rows([(one, y), *sloped], start - r, start + r, rounded)
    for k in range(1, count):
        begun = builder.add_binaries(f"{name} begun {k}", len(z))
        builder.add_rows([(one, parts[k - 1]), (-shortest[:, k - 1], begun)], 0.0, np.inf)
        builder.add_rows([(one, parts[k]), (-longest[:, k], begun)], -np.inf, 0.0)
