"""Where a point of a relational program is no member's: coordinates that a binary makes exact, worst first.

A program begins without these binaries, most of which would decide nothing; the search adds those that its own point
asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.exact.relational import Relational

_NEGLIGIBLE = 1e-9
"""The gap, relative to the range of a value, up to which a binary is not worth it."""


@dataclass(frozen=True, order=True)
class Overstated:
    """Coordinate `place` of layer `layer`, and by how much the point overstates it. `zero`: a rounding point gives what
    it keeps at 0; else |x| is at a chord above it."""

    gap: float
    layer: int
    place: int
    zero: bool


def overstated(program: Relational, point: Array) -> list[Overstated]:
    """All that is overstated at a point (n,), worst first; chords weighted by the radii they are multiplied with."""
    return sorted([*_chords(program, point), *_zeros(program, point)], reverse=True)


def _chords(program: Relational, point: Array) -> list[Overstated]:
    """Wherever a chord lies above |x_j| and it matters."""
    found = []
    for i, relaxed in program.relaxed.items():
        magnitude, x = program.magnitudes[i], point[program.columns[i]]
        gap = magnitude.slope * x + magnitude.intercept - np.abs(x)
        width = program.bounds.upper[i] - program.bounds.lower[i]
        weighted = gap * program.maps.radius_sum(i)
        found += [Overstated(float(weighted[j]), i, int(j), False) for j in relaxed if gap[j] > _NEGLIGIBLE * width[j]]
    return found


def _zeros(program: Relational, point: Array) -> list[Overstated]:
    """Wherever a rounding point that keeps 0 gives more than 0 for what is at most `dead`, or less for at least
    `-dead`, and has no binary for it (one whose range begins at 0 has)."""
    found = []
    for i in program.network.roundings:
        kept, y = program.point(i), point[program.columns[i]]
        some = np.flatnonzero((kept.dead >= 0) & (y != 0) & ~program.zeros.get(i, np.zeros(len(y), dtype=bool)))
        if not len(some):
            continue
        width = program.bounds.upper[i] - program.bounds.lower[i]
        high, low = (program.entering(i, some, sign, point) for sign in (1.0, -1.0))
        dead, gap = kept.dead[some], np.abs(y[some])
        wrong = ((y[some] > 0) & (high <= dead) & (kept.low[1][some] < 0)) | ((y[some] < 0) & (low >= -dead))
        wrong &= gap > _NEGLIGIBLE * width[some]
        found += [Overstated(float(gap[k]), i, int(some[k]), True) for k in np.flatnonzero(wrong)]
    return found
