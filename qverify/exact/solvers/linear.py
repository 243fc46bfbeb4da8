"""Linear programs that change a little from one solve to the next: what branch and bound needs of a solver.

HiGHS's dual simplex starts from the basis of the solve before. After a variable is fixed or a row added that basis
is still dual feasible, so a node of the tree costs a few pivots instead of a solve from nothing.

Nothing here is to be believed: a `Solved` carries row duals, from which `duality.Duality` computes a bound that
holds whatever HiGHS did (branching.py).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from qverify.arrays import Array
from qverify.errors import SolverError
from qverify.exact.program import IntArray, Program
from qverify.exact.solvers import highs
from qverify.exact.solvers.base import Limits
from qverify.text.brief import Brief


@dataclass(frozen=True, eq=False, repr=False)
class Solved(Brief):
    """One linear program after HiGHS: `point` (n,) and `duals` (m,) where it gave any.

    `infeasible`: HiGHS says there is no point, and `duals` then is the ray that shows it. `above`: it stopped as the
    minimum is above the number asked about. `finished`: it was not stopped by the clock or from outside.
    """

    point: Array | None
    duals: Array | None
    infeasible: bool = False
    above: bool = False
    finished: bool = True


class Linear:
    """A linear program that stays loaded: the relaxation of `program`, whose rows and variable ranges may change.

    Raises SolverError if HiGHS is missing or refuses the program.
    """

    def __init__(self, program: Program, stop: threading.Event | None = None):
        self._stop = stop
        self._highs = highs.load(program, 1, integers=False)
        self._variables = np.arange(program.variables, dtype=np.int32)
        for name, value in (("presolve", "off"), ("solver", "simplex")):
            self._highs.setOptionValue(name, value)

    def objective(self, cost: Array, offset: float) -> None:
        """Minimise `cost . v + offset` from now on."""
        self._highs.changeColsCost(len(cost), self._variables, np.ascontiguousarray(cost, dtype=np.float64))
        self._highs.changeObjectiveOffset(float(offset))

    def ranges(self, columns: IntArray, lower: Array, upper: Array) -> None:
        """Variables `columns` (k,) lie in [lower, upper] (k,) from now on."""
        self._highs.changeColsBounds(len(columns), columns.astype(np.int32), lower, upper)

    def add(self, rows: Any, lower: Array) -> None:
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

    def drop(self, rows: IntArray) -> None:
        """Take rows out; those after them move up."""
        if len(rows):
            self._highs.deleteRows(len(rows), rows.astype(np.int32))

    def solve(self, seconds: float | None, above: float = np.inf) -> Solved:
        """Solve from the last basis, for at most `seconds`; a minimum `above` this need not be found."""
        solver, kinds = self._highs, highs.library().HighsModelStatus
        highs.use_threads(solver, 1)
        highs.limit_time(solver, seconds, integers=False)
        solver.setOptionValue("objective_bound", float(above))
        watch = highs.Watch(Limits(), self._stop)
        highs.listen(solver, watch, integers=False, limits=Limits())
        solver.run()
        if watch.error is not None:
            raise watch.error
        status = solver.getModelStatus()
        if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
            return Solved(None, self._ray(), infeasible=True)
        solution = solver.getSolution()
        optimal = status in (kinds.kOptimal, kinds.kModelEmpty)
        point = np.array(solution.col_value) if optimal and solution.value_valid else None
        duals = np.array(solution.row_dual) if solution.dual_valid else None
        finished = status not in (kinds.kTimeLimit, kinds.kInterrupt)
        return Solved(point, duals, above=status == kinds.kObjectiveBound, finished=finished)

    def _ray(self) -> Array | None:
        """Multipliers of the rows that show there is no point (Farkas), if HiGHS has them."""
        _, exists, ray = self._highs.getDualRay()
        return np.array(ray) if exists else None

    def close(self) -> None:
        self._highs.setCallback(None, None)
        self._highs.clear()
