"""Programs in units that suit a solver.

Solvers work to absolute tolerances (about 1e-9): a variable whose whole range is 1e-9 may be fixed, a coefficient of
1e-12 is dropped. A ReLU network computes the same when one layer's weights are scaled up and the next one's down, so
such ranges do occur and mean nothing. `Scaled` therefore hands the solver the same program with every range, every
row's largest coefficient and the largest cost of about 1; what that can cost is in gain.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from qverify.exact.program import Objective, Products, Program
from qverify.exact.solvers.base import Limits, Outcome, Session
from qverify.exact.solvers.duality import dual_value
from qverify.rounding import allowance
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from qverify.arrays import Array


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Scaled(Brief):
    """A program in units: `program` is `original` in v' with v = shift + unit * v' (n,), rows over `row_unit` (m,).

    Units are powers of two. Where products occur, shift is 0 and a unit covers the magnitude; elsewhere the range.
    Sound: every point of `original` is one of `program`, since limits are moved outwards by what shifting rounds.
    """

    original: Program
    program: Program
    shift: Array
    unit: Array
    row_unit: Array

    @staticmethod
    def of(original: Program) -> Scaled:
        """The program in units chosen for it; integer variables keep theirs."""
        lower, upper = original.lower, original.upper
        bilinear = len(original.products) > 0
        reach = np.maximum(abs(lower), abs(upper)) if bilinear else upper - lower
        unit = np.where(original.integer, 1.0, power_of_two(reach))
        shift = np.where(original.integer | bilinear, 0.0, lower)
        rows = sparse.csr_matrix(original.rows @ sparse.diags(unit))
        p = original.products
        products = p.coefficient * unit[p.first] * unit[p.second]
        largest = np.zeros(original.row_count)
        np.maximum.at(largest, np.repeat(np.arange(original.row_count), np.diff(rows.indptr)), abs(rows.data))
        np.maximum.at(largest, p.row, abs(products))
        row_unit = power_of_two(largest)
        activity, away = original.rows @ shift, abs(original.rows) @ abs(shift)
        most = int(np.diff(rows.indptr).max(initial=0))
        below, above = (
            allowance(away + np.where(np.isfinite(limit), abs(limit), 0.0), most)
            for limit in (original.row_lower, original.row_upper)
        )
        program = replace(
            original,
            lower=(lower - shift) / unit,  # exact: shift is 0 or the lower end
            upper=np.where(shift == 0, upper, np.nextafter(upper - shift, np.inf)) / unit,
            rows=sparse.csr_matrix(sparse.diags(1.0 / row_unit) @ rows),
            row_lower=(original.row_lower - activity - np.where(away > 0, below, 0.0)) / row_unit,
            row_upper=(original.row_upper - activity + np.where(away > 0, above, 0.0)) / row_unit,
            products=Products(row=p.row, first=p.first, second=p.second, coefficient=products / row_unit[p.row]),
        )
        return Scaled(original=original, program=program, shift=shift, unit=unit, row_unit=row_unit)

    def objective(self, objective: Objective) -> tuple[Objective, float]:
        """The objective in the variables v', divided by a power of two that leaves its largest cost at about 1; and
        that power."""
        cost = objective.cost * self.unit
        one = float(power_of_two(abs(cost).max(initial=0.0)))
        return Objective(cost / one, (objective.offset + float(objective.cost @ self.shift)) / one), one

    def minimise(self, session: Session, objective: Objective, limits: Limits, relax: bool) -> Outcome:
        """The outcome, in the original units, of a minimisation by a session on the scaled program.

        The bound of a linear program is computed afresh from its duals, and so is sound whatever the solver did; that
        of another program is the solver's word.
        """
        scaled, one = self.objective(objective)
        above, below = (None if stop is None else stop / one for stop in (limits.stop_above, limits.stop_below))
        limits = Limits(seconds=limits.seconds, stop_above=above, stop_below=below)
        outcome = session.minimise(scaled, limits, relax)
        point, duals, bound, incumbent = outcome.point, outcome.row_duals, outcome.dual_bound * one, None
        if point is not None:
            point = np.clip(self.shift + self.unit * point, self.original.lower, self.original.upper)
            incumbent = objective.value(point)
        if duals is not None:
            duals = duals * one / self.row_unit
            bound = dual_value(self.original, objective, duals)
        return replace(outcome, incumbent=incumbent, point=point, row_duals=duals, dual_bound=bound)


@dataclass(frozen=True, eq=False, repr=False)
class InUnits(Brief):
    """The `Session` of `scaled.original` that a session of `scaled.program` makes."""

    scaled: Scaled
    session: Session

    def minimise(self, objective: Objective, limits: Limits, relax: bool = False) -> Outcome:
        return self.scaled.minimise(self.session, objective, limits, relax)

    def close(self) -> None:
        self.session.close()


def power_of_two(sizes: Any) -> Array:
    """The power of two nearest to each size in the logarithm, 1 for 0."""
    exponent = np.round(np.log2(np.where(sizes > 0, sizes, 1.0)))
    return np.asarray(np.exp2(np.clip(exponent, -1000, 1000)))
