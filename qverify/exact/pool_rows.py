"""The rows of a MaxPool in a program (mathematics.md, section 4.4): y is one of the numbers under its window.

    y >= x_i,    y <= x_i + M_i (1 - a_i),    y <= sum_i u_i a_i,    sum_i a_i = 1,    a_i binary

over the candidates, those of the numbers that may be the largest: u_i > max_j l_j, and the one of the largest lower
end. `M_i` is the largest upper end of the other candidates less l_i. One candidate alone is y.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from qverify.arrays import Array
    from qverify.exact.builder import ProgramBuilder
    from qverify.exact.program import IntArray


def candidates(windows: IntArray, lower: Array, upper: Array) -> Any:
    """Mask (n, k) of what may be the largest under each of the windows (n, k), each number once; ends (n_in,). Another
    one is nowhere above all of these."""
    low, high = lower[windows], upper[windows]
    order = np.argsort(windows, axis=1, kind="stable")
    ordered = np.take_along_axis(windows, order, axis=1)
    again = np.zeros(windows.shape, dtype=bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    found = (high > low.max(axis=1, keepdims=True)) & ~again
    found[np.arange(len(windows)), low.argmax(axis=1)] = True  # the first of equals, which is not one seen before
    return found


def pool_rows(
    builder: ProgramBuilder, name: str, y: IntArray, x: IntArray, windows: IntArray, ends: tuple[Array, Array]
) -> None:
    """Add the rows. Variables y (n,) and x (n_in,); `ends`: bounds on x; `name` is that of the binaries."""
    found = candidates(windows, *ends)
    alone = found.sum(axis=1) == 1
    rows, places = np.nonzero(found & alone[:, None])
    if len(rows):
        one = np.ones(len(rows))
        builder.add_rows([(one, y[rows]), (-one, x[windows[rows, places]])], 0.0, 0.0)
    found = found & ~alone[:, None]
    rows, places = np.nonzero(found)
    if not len(rows):
        return
    read, one = windows[rows, places], np.ones(len(rows))
    binaries = builder.add_binaries(name, len(rows))
    builder.add_rows([(one, y[rows]), (-one, x[read])], 0.0, np.inf)
    big = np.nextafter(_others(found, ends[1][windows])[rows, places] - ends[0][read], np.inf)
    builder.add_rows([(one, y[rows]), (-one, x[read]), (big, binaries)], -np.inf, big)
    outputs, number = np.unique(rows, return_inverse=True)
    shape = (len(outputs), len(rows))
    where = (number.ravel(), np.arange(len(rows)))
    builder.add_rows([(sparse.csr_matrix((one, where), shape=shape), binaries)], 1.0, 1.0)
    tops: Any = sparse.csr_matrix((-ends[1][read], where), shape=shape)
    builder.add_rows([(np.ones(len(outputs)), y[outputs]), (tops, binaries)], -np.inf, 0.0)


def _others(found: Any, high: Array) -> Array:
    """(n, k): for each candidate the largest upper end of the others."""
    high = np.where(found, high, -np.inf)
    first = high.argmax(axis=1)
    rest = high.copy()
    rest[np.arange(len(high)), first] = -np.inf
    out = np.broadcast_to(high.max(axis=1, keepdims=True), high.shape).copy()
    out[np.arange(len(high)), first] = rest.max(axis=1)
    return out
