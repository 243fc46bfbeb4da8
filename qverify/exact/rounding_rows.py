"""The rows of a rounding point in a program, formula (32): its two sides, with a binary for a kink within the bounds.

With lo and hi the ends of what enters, of which the relational program knows both and the bilinear one only v itself,

    y >= min(lo - r, high),    y <= max(hi + r, low),    low <= y <= high,

each a single row where the kink lies outside the bounds, else two rows and a binary. Where 0 is kept, y > 0 takes
hi > `dead` and y < 0 takes lo < -`dead`, or a member next to 0 could be away from it. Where the range begins at 0, a
cut ties the binary that there is to it; elsewhere those that are wanted `exact` get a binary. What `grid_rows` keeps on
its grid gets some, too. The other grids and zeros are in the bounds of the variables alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.exact.builder import ProgramBuilder, Rounded
from qverify.family.points import multiples
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.exact.program import BoolArray, IntArray
    from qverify.family.points import Point


_BITS = 16
"""Binaries for the steps of one output, at most."""


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

    `radius`; `y`: bounds on y; `most_low`: an upper bound on lo, `least_high`: a lower bound on hi; `exact`: where 0 is
    to be kept exactly.
    """

    index: int
    block: IntArray
    radius: Array
    y: tuple[Array, Array]
    most_low: Array
    least_high: Array
    exact: BoolArray


def rounding_rows(
    builder: ProgramBuilder, point: Point, side: Side, end: Callable[[IntArray, float], IntervalEnd]
) -> None:
    """Add the rows; `end(chosen, sign)` gives lo (sign -1) or hi (+1) of what enters, for some of the outputs."""
    moves = side.y[1] > side.y[0]
    _below(builder, point, side, end, moves)
    _above(builder, point, side, end, moves)
    _exact_zeros(builder, point, side, end, moves)


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
        kept = np.flatnonzero(dead[split])
        _tied(builder, point, side, end, 1.0, (split[kept], s[kept]))


def _exact_zeros(builder: ProgramBuilder, point: Point, side: Side, end: Any, moves: Any) -> None:
    """y <= c s and hi >= dead where s = 1, with `c` the upper bound on y; and the same below 0."""
    kept = moves & side.exact & (point.dead >= 0)
    for sign, most, least in (
        (1.0, side.y[1], side.least_high),
        (-1.0, -side.y[0], -side.most_low),
    ):
        wanted = kept & (most > 0) & (least < point.dead)
        if sign > 0:
            wanted &= ~_keeps_zero(point, side)  # which have their binary
        chosen = np.flatnonzero(wanted)
        if len(chosen):
            s = builder.add_binaries(f"{'above' if sign > 0 else 'below'} 0 {side.index}", len(chosen))
            builder.add_rows([(np.full(len(chosen), -sign), side.block[chosen]), (most[chosen], s)], 0.0, np.inf)
            _tied(builder, point, side, end, sign, (chosen, s))


def _tied(
    builder: ProgramBuilder, point: Point, side: Side, end: Any, sign: float, where: tuple[IntArray, IntArray]
) -> None:
    """The cut `hi >= dead` where s = 1, by sign +1; by sign -1 `lo <= -dead`. Without either, y has not that sign."""
    chosen, s = where
    if not len(chosen):
        return
    threshold = np.broadcast_to(point.dead, side.radius.shape)[chosen]
    least = (side.least_high if sign > 0 else -side.most_low)[chosen]
    reach = np.nextafter(threshold - least, np.inf)
    # sign end >= dead - reach (1 - s), where dead - reach <= least.
    inner = end(chosen, sign)
    terms = [(sign * matrix, columns) for matrix, columns in inner.terms]
    mass = Rounded(mass=inner.mass + threshold + reach, terms=inner.count, reach=inner.reach)
    builder.add_rows([*terms, (-reach, s)], threshold - reach - sign * inner.constant, np.inf, mass)


def grid_rows(builder: ProgramBuilder, step: Array, side: Side, chosen: BoolArray) -> None:
    """Keep the outputs of a mask on the multiples of their steps (size,), where these are known: y is the least one
    within the bounds, and as many steps more as binaries count. Exact, as multiples of a number of float32 are."""
    safe = np.where(step > 0, step, 1.0)
    first, last = multiples(np, safe, *side.y)
    count = last - first
    places = np.flatnonzero(chosen & (step > 0) & (count > 0) & (count < 2.0**_BITS))
    if not len(places):
        return
    terms: list[tuple[Any, IntArray]] = [(-np.eye(len(places)), side.block[places])]
    for bit in range(_BITS):
        more = np.flatnonzero(count[places] >= 2.0**bit)
        if len(more):
            s = builder.add_binaries(f"steps {side.index}, {bit}", len(more))
            weight = np.zeros((len(places), len(more)))
            weight[more, np.arange(len(more))] = safe[places[more]] * 2.0**bit
            terms.append((weight, s))
    start = -first[places] * safe[places]
    builder.add_rows(terms, start, start)


def _keeps_zero(point: Point, side: Side) -> BoolArray:
    """Mask: y is at most 0 where hi is at most `dead`, and the range begins there."""
    mask: BoolArray = np.broadcast_to((point.low[1] == 0) & (point.dead >= 0), side.radius.shape)
    return mask


def _outward(value: Array, radius: Array, direction: float) -> Array:
    """`value`, which has `radius` added or taken off, moved beyond what was rounded in that."""
    return np.where(radius > 0, np.nextafter(value, direction), value)


def _own(side: Side, chosen: IntArray) -> tuple[Array, IntArray]:
    return -np.ones(len(chosen)), side.block[chosen]
