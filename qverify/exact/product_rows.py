"""The rows of the product of two layers in a program: McCormick's (bounds/products.py), which relax it.

The bilinear program has the product itself as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qverify.exact.builder import Rounded

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.exact.builder import ProgramBuilder
    from qverify.exact.program import IntArray

Ends = tuple["Array", "Array"]


def product_rows(builder: ProgramBuilder, z: IntArray, factors: tuple[IntArray, IntArray], x: Ends, y: Ends) -> None:
    """Add the rows. Variables z (n,) and those of both factors; `x`, `y`: bounds on these. A square has one row more,
    the tangent in the middle."""
    one = np.ones(len(z))
    reach = np.maximum(-x[0], x[1]), np.maximum(-y[0], y[1])
    rounded = Rounded(mass=3.0 * reach[0] * reach[1], terms=4, reach=float(sum(each.sum() for each in reach)))
    touching = [(x[0], y[0], False), (x[1], y[1], False), (x[0], y[1], True), (x[1], y[0], True)]
    if factors[0] is factors[1]:
        middle = x[0] + (x[1] - x[0]) / 2.0
        touching.append((middle, middle, False))
    for a, b, above in touching:
        low, high = (-np.inf, -a * b) if above else (-a * b, np.inf)
        builder.add_rows([(one, z), (-b, factors[0]), (-a, factors[1])], low, high, rounded)
