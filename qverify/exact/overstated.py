"""Where a point of a relational program is no member's: coordinates that binaries make exact, worst first.

A program begins without these binaries, most of which would decide nothing; the search adds those that its own point
asks for:

    SIGN    |x_j| is at its chord, above it: a binary for the sign of x_j
    ZERO    a rounding point gives something for what it keeps at 0: a binary for either side of 0
    GRID    a rounding point gives what is between two multiples of its step: binaries for the number of steps
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.exact.program import BoolArray
    from qverify.exact.relational import Relational

SIGN, ZERO, GRID = "sign", "zero", "grid"
_NEGLIGIBLE = 1e-9
"""The gap, relative to the range of a value, up to which a binary is not worth it."""
_BETWEEN = 1e-6
"""The least share of a step by which a value is off its grid: solvers keep rows to some digits."""


@dataclass(eq=False, repr=False)
class Exactly(Brief):
    """Which coordinates of a program have binaries, by kind and layer: masks (size,)."""

    masks: dict[str, dict[int, BoolArray]] = field(default_factory=lambda: {SIGN: {}, ZERO: {}, GRID: {}})

    def of(self, kind: str, layer: int, size: int) -> BoolArray:
        """The mask of a kind at a layer of so many coordinates."""
        return self.masks[kind].get(layer, np.zeros(size, dtype=bool))

    def add(self, kind: str, layer: int, mask: BoolArray) -> None:
        """Take in more coordinates."""
        self.masks[kind][layer] = self.of(kind, layer, len(mask)) | mask


@dataclass(frozen=True, order=True)
class Overstated:
    """Coordinate `place` of layer `layer`, of which the point states `gap` too much, in the way of its `kind`."""

    gap: float
    layer: int
    place: int
    kind: str


def overstated(program: Relational, point: Array) -> list[Overstated]:
    """All that is overstated at a point (n,), worst first; chords weighted by the radii they are multiplied with."""
    return sorted([*_chords(program, point), *_rounded(program, point)], reverse=True)


def _chords(program: Relational, point: Array) -> list[Overstated]:
    """Wherever a chord lies above |x_j| and it matters."""
    found = []
    for i, relaxed in program.relaxed.items():
        magnitude, x = program.magnitudes[i], point[program.columns[i]]
        gap = magnitude.slope * x + magnitude.intercept - np.abs(x)
        width = program.bounds.upper[i] - program.bounds.lower[i]
        weighted = gap * program.maps.radius_sum(i)
        found += [Overstated(float(weighted[j]), i, int(j), SIGN) for j in relaxed if gap[j] > _NEGLIGIBLE * width[j]]
    return found


def _rounded(program: Relational, point: Array) -> list[Overstated]:
    """Wherever a rounding point gives what it cannot, and has no binaries for that."""
    found = []
    for i in program.network.roundings:
        for kind, gap in ((ZERO, _off_zero(program, i, point)), (GRID, _off_grid(program, i, point))):
            gap = np.where(program.exact.of(kind, i, len(gap)), 0.0, gap)
            found += [Overstated(float(gap[j]), i, int(j), kind) for j in np.flatnonzero(gap)]
    return found


def _off_zero(program: Relational, index: int, point: Array) -> Array:
    """(size,): |y| where it is more than 0 for what is at most `dead`, or less for what is at least `-dead`; else 0.
    Where the range begins at 0, there is a binary."""
    kept, y = program.point(index), point[program.columns[index]]
    gap = np.zeros(len(y))
    some = np.flatnonzero((kept.dead >= 0) & (y != 0))
    if len(some):
        high, low = (program.entering(index, some, sign, point) for sign in (1.0, -1.0))
        dead, above = kept.dead[some], kept.low[1][some] < 0
        wrong = ((y[some] > 0) & (high <= dead) & above) | ((y[some] < 0) & (low >= -dead))
        gap[some] = np.where(wrong, np.abs(y[some]), 0.0)
    width = program.bounds.upper[index] - program.bounds.lower[index]
    return np.where(gap > _NEGLIGIBLE * width, gap, 0.0)


def _off_grid(program: Relational, index: int, point: Array) -> Array:
    """(size,): how far y is from the nearest multiple of the step, where that is known; 0 where it is nearly one."""
    step, y = program.point(index).step, point[program.columns[index]]
    safe = np.where(step > 0, step, 1.0)
    off = np.abs(y / safe - np.rint(y / safe))
    return np.where((step > 0) & (off > _BETWEEN), off * safe, 0.0)
