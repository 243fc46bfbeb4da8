"""Bounds on linear programs that are proved from row duals alone, whatever the solver did to find them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.exact.program import Box, Objective, Program
from qverify.rounding import allowance

if TYPE_CHECKING:
    from qverify.arrays import Array


class Duality:
    """Lower bounds on linear programs over the rows `row_lower <= rows @ v <= row_upper`, from row duals alone.

    Weak duality over the box (Neumaier and Shcherbina, Safe bounds in linear and mixed-integer linear programming,
    2004): it holds for *any* duals of finite row limits, optimal or not, and the rounding of the sums is taken off,
    underflow included (rounding.py). rows CSR (m, n).
    """

    def __init__(self, rows: Any, row_lower: Array, row_upper: Array):
        self._rows, self._lower, self._upper = rows.T, row_lower, row_upper
        self._absolute = abs(rows).T
        self._terms = sum(rows.shape)

    def feasible(self, row_duals: Array) -> Array:
        """Duals (m,) with those set to zero that push against an infinite row limit (a solver's dual infeasibility)."""
        wrong = ((row_duals > 0) & np.isinf(self._lower)) | ((row_duals < 0) & np.isinf(self._upper))
        return np.asarray(np.where(wrong | ~np.isfinite(row_duals), 0.0, row_duals), dtype=np.float64)

    def bound(self, box: Box, objective: Objective, row_duals: Array) -> float:
        """The dual bound on the objective over the box and the rows, formula (18), from `feasible` duals (m,).

        Sound in floating point, allowance (17) taken off; at optimal duals it is the optimum up to that. -inf if the
        sums overflow.
        """
        cost, offset, low, high = objective.cost, objective.offset, box.lower, box.upper
        reduced = cost - self._rows @ row_duals
        ends = np.minimum(reduced * low, reduced * high).sum()
        up, down = row_duals > 0, row_duals < 0
        rows = row_duals[up] @ self._lower[up] + row_duals[down] @ self._upper[down]
        reach, size = np.maximum(abs(low), abs(high)), abs(row_duals)
        mass = (abs(cost) + self._absolute @ size) @ reach + abs(offset)
        mass += size[up] @ abs(self._lower[up]) + size[down] @ abs(self._upper[down])
        bound = float(offset + rows + ends - allowance(mass, self._terms, reach.sum()))
        return bound if math.isfinite(bound) else -math.inf


def feasible_duals(program: Program, row_duals: Array) -> Array:
    """See `Duality.feasible`."""
    return Duality(program.rows, program.row_lower, program.row_upper).feasible(row_duals)


def dual_value(program: Program, objective: Objective, row_duals: Array) -> float:
    """See `Duality.bound`: a bound on a linear program, or on the relaxation of a mixed-integer one."""
    duality = Duality(program.rows, program.row_lower, program.row_upper)
    return duality.bound(Box(lower=program.lower, upper=program.upper), objective, row_duals)
