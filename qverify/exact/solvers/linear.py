"""Linear programs that change a little from one solve to the next: what branch and bound needs of a solver.

HiGHS's dual simplex starts from the basis of the solve before. After a variable is fixed or a row added that basis
is still dual feasible, so a node of the tree costs a few pivots instead of a solve from nothing.

Nothing here is to be believed: a `Solved` carries row duals, from which `duality.Duality` computes a bound that
holds whatever HiGHS did (branching.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import SolverError
from qverify.exact.solvers import highs
from qverify.exact.solvers.base import Limits
from qverify.text.brief import Brief

if TYPE_CHECKING:
    import threading

    from qverify.arrays import Array
    from qverify.exact.program import IntArray, Objective, Program


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Solved(Brief):
    """Point (n,) and row duals (m,) of one linear program after HiGHS, where it gave any.

    `infeasible`: HiGHS says there is no point, and `duals` then is the ray that shows it. `above`: it stopped as the
    minimum is above the number asked about. `finished`: it was not stopped by the clock or from outside.
    """

    point: Array | None = None
    duals: Array | None = None
    infeasible: bool = False
    above: bool = False
    finished: bool = True


class LinearProgram:
    """A linear program that stays loaded: the relaxation of `program`, whose rows and variable ranges may change.

    Raises SolverError if HiGHS is missing or refuses the program.
    """

    def __init__(self, program: Program, stop: threading.Event | None = None):
        self._stop = stop
        self._highs = highs.load_program(program, 1, integers=False)
        for name, value in (("presolve", "off"), ("solver", "simplex")):
            self._highs.setOptionValue(name, value)

    def set_objective(self, objective: Objective) -> None:
        """Set the objective to minimise from now on."""
        highs.set_objective(self._highs, objective)

    def set_ranges(self, columns: IntArray, lower: Array, upper: Array) -> None:
        """Set the ranges [lower, upper] (k,) of the variables `columns` (k,) from now on."""
        self._highs.changeColsBounds(len(columns), columns.astype(np.int32), lower, upper)

    def add_rows(self, rows: Any, lower: Array) -> None:
        """Append rows `rows @ v >= lower`; rows CSR (k, n)."""
        status = self._highs.addRows(
            rows.shape[0],
            lower,
            np.full(rows.shape[0], np.inf),
            rows.nnz,
            rows.indptr[:-1].astype(np.int32),
            rows.indices.astype(np.int32),
            rows.data.astype(np.float64),
        )
        if status == highs.library().HighsStatus.kError:
            raise SolverError("HiGHS refuses a row (a coefficient of 1e15 or more?); try `--solver scip`.")

    def drop_rows(self, rows: IntArray) -> None:
        """Take rows out; those after them move up."""
        if len(rows):
            self._highs.deleteRows(len(rows), rows.astype(np.int32))

    def solve(self, seconds: float | None, above: float = np.inf) -> Solved:
        """Point and duals after a solve from the last basis, of at most `seconds`; a minimum `above` may stay open."""
        solver, kinds = self._highs, highs.library().HighsModelStatus
        highs.use_threads(solver, 1)
        highs.limit_time(solver, seconds, integers=False)
        solver.setOptionValue("objective_bound", float(above))
        watch = highs.Watch(Limits(), self._stop)
        highs.listen(solver, watch, integers=False, limits=Limits())
        highs.run_solver(solver, watch)
        status = solver.getModelStatus()
        if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
            return Solved(duals=self._ray(), infeasible=True)
        solution = solver.getSolution()
        optimal = status in (kinds.kOptimal, kinds.kModelEmpty)
        point = np.array(solution.col_value) if optimal and solution.value_valid else None
        duals = np.array(solution.row_dual) if solution.dual_valid else None
        finished = status not in (kinds.kTimeLimit, kinds.kInterrupt)
        return Solved(point=point, duals=duals, above=status == kinds.kObjectiveBound, finished=finished)

    def _ray(self) -> Array | None:
        """Multipliers of the rows that show there is no point (Farkas), if HiGHS has them."""
        _, exists, ray = self._highs.getDualRay()
        return np.array(ray) if exists else None

    def close(self) -> None:
        """Give HiGHS's memory back."""
        highs.release(self._highs)
