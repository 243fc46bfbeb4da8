"""The rows of a rounding point in a program, formula (32): its two sides, with a binary for a kink within the bounds.

With lo and hi the ends of what enters, of which the relational program knows both and the bilinear one only v itself,

    y >= min(lo - r, high),    y <= max(hi + r, low),    low <= y <= high,

each a single row where the kink lies outside the bounds, else two rows and a binary. What bounds on y know beyond that,
the grid and the zeros, is in the bounds of its variables. Where 0 is kept and the range begins there, y > 0 takes
hi > `dead`: a cut that ties the binary to it, without which a member at hi <= `dead` could be above 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.exact.builder import ProgramBuilder, Rounded
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.exact.program import IntArray
    from qverify.family.points import Point

    BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IntervalEnd(Brief):
    """One end of (1) for m outputs of an affine layer, `terms` + `constant`, and the masses of what was rounded in it.

    `mass` (m,), `count`, `reach`: as in `builder.Rounded`.
    """

    terms: list[tuple[Any, IntArray]]
    constant: Array
    mass: Array
    count: int
    reach: float

    def rounded(self, more: Any) -> Rounded:
        """The masses of a row whose limit has `more` (m,) added to the constant, or taken from it (absolute values)."""
        return Rounded(mass=self.mass + abs(more), terms=self.count, reach=self.reach)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Side(Brief):
    """The variables `block` of the outputs y of layer `index`, and what is known of them; arrays (size,).

    `radius`; `y`: bounds on y; `most_low`: an upper bound on lo, `least_high`: a lower bound on hi.
    """

    index: int
    block: IntArray
    radius: Array
    y: tuple[Array, Array]
    most_low: Array
    least_high: Array


def rounding_rows(
    builder: ProgramBuilder, point: Point, side: Side, end: Callable[[IntArray, float], IntervalEnd]
) -> None:
    """Add the rows; `end(chosen, sign)` gives lo (sign -1) or hi (+1) of what enters, for some of the outputs."""
    moves = side.y[1] > side.y[0]
    _below(builder, point, side, end, moves)
    _above(builder, point, side, end, moves)


def _below(builder: ProgramBuilder, point: Point, side: Side, end: Any, moves: Any) -> None:
    """y >= min(lo - r, high)."""
    bottom, high = side.y[0], np.broadcast_to(point.high[0], side.radius.shape)
    most = _outward(side.most_low - side.radius, side.radius, np.inf)  # of lo - r
    wanted = moves & (most > bottom) & (high > bottom)
    plain, split = (np.flatnonzero(wanted & mask) for mask in (most <= high, most > high))
    if len(plain):
        lo, r = end(plain, -1.0), side.radius[plain]
        builder.add_rows([*lo.terms, _own(side, plain)], -np.inf, r - lo.constant, lo.rounded(r))
    if len(split):
        lo, r = end(split, -1.0), side.radius[split]
        slack = np.nextafter(most[split] - bottom[split], np.inf)
        s = builder.add_binaries(f"saturated {side.index}", len(split))
        rounded = lo.rounded(r + slack)
        # s = 0: y >= lo - r; s = 1: y >= high.
        builder.add_rows([*lo.terms, _own(side, split), (-slack, s)], -np.inf, r - lo.constant, rounded)
        rise = np.nextafter(high[split] - bottom[split], -np.inf)
        builder.add_rows([_own(side, split), (rise, s)], -np.inf, -bottom[split])


def _above(builder: ProgramBuilder, point: Point, side: Side, end: Any, moves: Any) -> None:
    """y <= max(hi + r, low)."""
    top, low = side.y[1], np.broadcast_to(point.low[1], side.radius.shape)
    least = _outward(side.least_high + side.radius, side.radius, -np.inf)  # of hi + r
    dead = _keeps_zero(point, side) & (side.least_high < point.dead)
    wanted = moves & (low < top) & ((least < top) | dead)
    plain, split = (np.flatnonzero(wanted & mask) for mask in ((least >= low) & ~dead, (least < low) | dead))
    if len(plain):
        hi, r = end(plain, 1.0), side.radius[plain]
        builder.add_rows([*hi.terms, _own(side, plain)], -r - hi.constant, np.inf, hi.rounded(r))
    if len(split):
        hi, r = end(split, 1.0), side.radius[split]
        slack = np.maximum(np.nextafter(low[split] - least[split], np.inf), 0.0)
        s = builder.add_binaries(f"active {side.index}", len(split))
        rounded = hi.rounded(r + slack)
        # s = 1: y <= hi + r; s = 0: y <= low.
        builder.add_rows([*hi.terms, _own(side, split), (-slack, s)], -slack - r - hi.constant, np.inf, rounded)
        rise = np.nextafter(top[split] - low[split], np.inf)
        builder.add_rows([_own(side, split), (rise, s)], -low[split], np.inf)
        _zeros(builder, point, side, hi, (split, s))


def _zeros(
    builder: ProgramBuilder, point: Point, side: Side, hi: IntervalEnd, where: tuple[IntArray, IntArray]
) -> None:
    """The cut `hi >= dead` where s = 1, for outputs that are 0 below: with hi <= dead, y is 0, and s = 0 will do."""
    split, s = where
    threshold = np.broadcast_to(point.dead, side.radius.shape)[split]
    chosen = np.flatnonzero(_keeps_zero(point, side)[split] & (side.least_high[split] < threshold))
    if not len(chosen):
        return
    reach = np.nextafter(threshold[chosen] - side.least_high[split][chosen], np.inf)
    # hi >= dead - reach (1 - s), where dead - reach <= least_high.
    terms = [(matrix[chosen], columns if matrix.ndim > 1 else columns[chosen]) for matrix, columns in hi.terms]
    limit = threshold[chosen] - reach - hi.constant[chosen]
    mass = Rounded(mass=hi.mass[chosen] + threshold[chosen] + reach, terms=hi.count, reach=hi.reach)
    builder.add_rows([*terms, (-reach, s[chosen])], limit, np.inf, mass)


def _keeps_zero(point: Point, side: Side) -> BoolArray:
    """Mask: y is at most 0 where hi is at most `dead`, and the range begins there."""
    mask: BoolArray = np.broadcast_to((point.low[1] == 0) & (point.dead >= 0), side.radius.shape)
    return mask


def _outward(value: Array, radius: Array, direction: float) -> Array:
    """`value`, which has `radius` added or taken off, moved beyond what was rounded in that."""
    return np.where(radius > 0, np.nextafter(value, direction), value)


def _own(side: Side, chosen: IntArray) -> tuple[Array, IntArray]:
    return -np.ones(len(chosen)), side.block[chosen]
