"""Gurobi: linear, mixed-integer and bilinear programs. Commercial; the pip package carries a small licence.

What an `Outcome` of this adapter guarantees, beyond base.py:
- `incumbent` is `cost . point + offset`, computed in numpy from the point Gurobi returned.
- `dual_bound` of a linear program is recomputed from the row duals (`duality.dual_value`); that of every
  other program is Gurobi's ObjBound, which stands on Gurobi's tolerances (TOLERANCE, the tightest it admits).
- Gurobi releases the GIL while it solves. Each session has its own environment, so sessions share nothing.
"""

from __future__ import annotations

import functools
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from qverify.errors import ModelTooLarge, SolverError
from qverify.exact.solvers.base import (
    Asked,
    Availability,
    Ending,
    Limits,
    Outcome,
    bound_or_nothing,
    just_above,
    summed_rows,
)
from qverify.exact.solvers.session import BOUNDLESS, AdapterSession, Claim, required_package

if TYPE_CHECKING:
    import threading

    from qverify.arrays import Array
    from qverify.exact.program import Objective, Program

TOLERANCE = 1e-9
"""FeasibilityTol, IntFeasTol and OptimalityTol: the least Gurobi admits. Tight, because an integrality
tolerance times a big-M constant leaks into the bound."""

FREE_VARIABLES, FREE_ROWS, FREE_VARIABLES_WITH_PRODUCTS = 2000, 2000, 200
"""The sizes that the licence in the pip package admits (measured with gurobipy 13: one more of any is refused)."""

TOO_LARGE = 10010
"""Gurobi's error number for a model beyond the size limit of the licence."""

ENDINGS = {
    "OPTIMAL": Ending.OPTIMAL,
    "INFEASIBLE": Ending.INFEASIBLE,
    "INF_OR_UNBD": Ending.INFEASIBLE,  # every variable is boxed
    "UNBOUNDED": Ending.UNBOUNDED,
    "TIME_LIMIT": Ending.TIME_LIMIT,
    "INTERRUPTED": Ending.INTERRUPTED,
    "USER_OBJ_LIMIT": Ending.TARGET_REACHED,  # or BOUND_REACHED: see `_ending`
}
"""Endings by the names of Gurobi's status codes in GRB; FAILED where one is not named here."""

REMEDY = (
    "install a full licence (free for academics: request it at gurobi.com, store the file as ~/gurobi.lic"
    " or point GRB_LICENSE_FILE to it)"
)


@functools.lru_cache(maxsize=1)
def library() -> Any:
    """The package gurobipy. Raises SolverError if it cannot be imported."""
    return required_package("gurobipy", "Gurobi", "install it with `pip install gurobipy`")


def _environment() -> Any:
    """A silent environment: output is off before it starts, so no banner and no licence line is printed."""
    package = library()
    environment = None
    try:
        environment = package.Env(empty=True)
        environment.setParam("OutputFlag", 0)
        environment.start()
    except package.GurobiError as error:
        if environment is not None:
            environment.dispose()
        raise SolverError(
            f"Gurobi finds no valid licence ({error}); {REMEDY}, unset GRB_LICENSE_FILE for the small licence"
            " that comes with gurobipy, or use `--solver highs`."
        ) from error
    return environment


@functools.lru_cache(maxsize=1)
def probe() -> tuple[bool, str]:
    """Whether the licence is full, and its end in words. Raises SolverError if there is none.

    Asked of Gurobi itself, by solving a model one variable over the small limit: no attribute or
    parameter tells the kinds of licence apart. 0.01 s, once a process (a failure is not remembered).
    """
    package, environment = library(), _environment()
    try:
        with package.Model(env=environment) as model:
            date = str(model.LicenseExpiration)
            ends = "no end date" if date.startswith("9999") else f"until {date[:4]}-{date[4:6]}-{date[6:]}"
            model.addMVar(FREE_VARIABLES + 1)
            model.optimize()
            return True, ends
    except package.GurobiError as error:
        if error.errno == TOO_LARGE:
            return False, ends
        raise SolverError(f"Gurobi's licence does not work ({error}); {REMEDY}.") from error
    finally:
        environment.dispose()


def _fatal(error: Any, program: Program) -> SolverError | None:
    """The exception for a GurobiError that no other objective could avoid, None if the error is of one solve."""
    if error.errno == TOO_LARGE:
        limit = (
            f"{FREE_VARIABLES_WITH_PRODUCTS} variables once products occur"
            if len(program.products)
            else f"{FREE_VARIABLES} variables and {FREE_ROWS} rows"
        )
        other = "scip" if len(program.products) else "highs"
        return ModelTooLarge(
            f"The program has {program.variable_count} variables and {program.row_count} rows; the licence that comes"
            f" with gurobipy admits {limit}. Use `--solver {other}`, or {REMEDY}."
        )
    if error.errno == library().GRB.Error.NO_LICENSE:
        return SolverError(f"Gurobi lost its licence ({error}); {REMEDY}.")
    return None


class _Loaded:
    """A program in Gurobi. A row with two finite limits becomes two constraints: Gurobi has no ranged rows
    without an extra variable, and variables are what the small licence is shortest of."""

    def __init__(self, program: Program, environment: Any, integers: bool):
        self.model = library().Model(env=environment)
        kinds = np.where(program.integer & integers, "I", "C")
        self.variables = self.model.addMVar(program.variable_count, lb=program.lower, ub=program.upper, vtype=kinds)
        linear = np.setdiff1d(np.arange(program.row_count), program.products.row)
        equal = program.row_lower == program.row_upper
        at_least = linear[np.isfinite(program.row_lower[linear]) & ~equal[linear]]
        at_most = linear[np.isfinite(program.row_upper[linear]) & ~equal[linear]]
        exactly = linear[equal[linear]]
        self.sources = np.concatenate([at_least, at_most, exactly])
        sense = np.repeat([">", "<", "="], [len(at_least), len(at_most), len(exactly)])
        right = np.concatenate([program.row_lower[at_least], program.row_upper[at_most], program.row_lower[exactly]])
        rows = summed_rows(program)
        self.constraints = None
        if len(self.sources):
            self.constraints = self.model.addMConstr(rows[self.sources], self.variables, sense, right)
        for row in np.unique(program.products.row):
            self._add_products(program, rows, row)

    def _add_products(self, program: Program, rows: Any, row: int) -> None:
        """One bilinear row: its quadratic part as a small matrix over the variables that occur."""
        mine = program.products.row == row
        left, i = np.unique(program.products.first[mine], return_inverse=True)
        right, j = np.unique(program.products.second[mine], return_inverse=True)
        quadratic = sparse.csr_matrix((program.products.coefficient[mine], (i, j)), shape=(len(left), len(right)))
        part = slice(rows.indptr[row], rows.indptr[row + 1])
        lower, upper = program.row_lower[row], program.row_upper[row]
        if lower == upper:
            limits = [("=", lower)]
        else:
            limits = [(sense, limit) for sense, limit in ((">", lower), ("<", upper)) if np.isfinite(limit)]
        variables, columns = self.variables, rows.indices[part]
        for sense, limit in limits:
            if len(columns):
                self.model.addMQConstr(
                    quadratic, rows.data[part], sense, limit, variables[left], variables[right], variables[columns]
                )
            else:
                self.model.addMQConstr(quadratic, None, sense, limit, variables[left], variables[right])

    def row_duals(self, row_count: int) -> Array:
        """The row duals (m,): those of the constraints of each row, summed."""
        duals = np.zeros(row_count)
        if self.constraints is not None:
            np.add.at(duals, self.sources, self.constraints.Pi)
        return duals


class GurobiSession(AdapterSession):
    """See `Session`. The program and its relaxation are two models, each loaded when first asked for."""

    def __init__(self, program: Program, threads: int, stop: threading.Event | None):
        super().__init__(program, stop)
        self._environment = _environment()
        for name in ("FeasibilityTol", "IntFeasTol", "OptimalityTol"):
            self._environment.setParam(name, TOLERANCE)
        self._environment.setParam("MIPGap", 0.0)
        self._environment.setParam("MIPGapAbs", 0.0)
        self._environment.setParam("Threads", threads)
        self._loaded: dict[bool, _Loaded] = {}

    def minimise(self, objective: Objective, limits: Limits, relax: bool = False) -> Outcome:
        """See `Session.minimise`."""
        if (outcome := self._interrupted()) is not None:
            return outcome
        asked = Asked(objective, limits, self._integers(relax))
        started = time.perf_counter()
        try:
            if asked.integers not in self._loaded:
                self._loaded[asked.integers] = _Loaded(self._program, self._environment, asked.integers)
            loaded = self._loaded[asked.integers]
            loaded.variables.Obj = objective.cost
            loaded.model.ObjCon = objective.offset
            self._set(loaded.model, limits)
            loaded.model.optimize(self._callback())
        except library().GurobiError as error:
            failure = _fatal(error, self._program)
            if failure is not None:
                raise failure from error
            return self._failed(str(error), time.perf_counter() - started)
        seconds = time.perf_counter() - started
        return self._finish(asked, self._claim(loaded, asked), seconds)

    def _set(self, model: Any, limits: Limits) -> None:
        """Stops, in the units of the objective with its constant. BestBdStop also fires on equality, and within
        some 1e-12."""
        model.Params.TimeLimit = math.inf if limits.seconds is None else max(limits.seconds, 0.0)
        above, below = limits.stop_above, limits.stop_below
        model.Params.BestBdStop = math.inf if above is None else just_above(above)
        model.Params.BestObjStop = -math.inf if below is None else below

    def _callback(self) -> Any:
        """Ends the solve when `stop` is set: some 11,000 calls a second, together within the noise of the time."""
        stop = self._stop
        if stop is None:
            return None

        def end_when_told(model: Any, where: int) -> None:
            if stop.is_set():
                model.terminate()

        return end_when_told

    def _claim(self, loaded: _Loaded, asked: Asked) -> Claim:
        """The claim of Gurobi after a solve."""
        model, program = loaded.model, self._program
        status, bound, duals = _ending(model, asked.limits), -math.inf, None
        if status in BOUNDLESS:
            pass
        elif asked.integers or len(program.products):
            bound = bound_or_nothing(model.ObjBound)
        elif model.Status == library().GRB.OPTIMAL:  # Pi exists only then
            duals = loaded.row_duals(program.row_count)
        return Claim(
            status=status,
            point=np.array(loaded.variables.X) if model.SolCount > 0 else None,
            dual_bound=bound,
            row_duals=duals,
            nodes=int(model.NodeCount),
            message=f"Gurobi status {model.Status}",
        )

    def close(self) -> None:
        """See `Session.close`."""
        for loaded in self._loaded.values():
            loaded.model.dispose()
        self._loaded.clear()
        self._environment.dispose()


@functools.lru_cache(maxsize=1)
def _endings() -> dict[int, Ending]:
    """`ENDINGS` by Gurobi's numbers."""
    return {getattr(library().GRB, name): ending for name, ending in ENDINGS.items()}


def _ending(model: Any, limits: Limits) -> Ending:
    """Why the solve ended. Gurobi has one status for both stops: the dual bound tells them apart."""
    above = limits.stop_above
    if model.Status == library().GRB.USER_OBJ_LIMIT and above is not None and model.ObjBound > above:
        return Ending.BOUND_REACHED
    return _endings().get(model.Status, Ending.FAILED)


class GurobiSolver:
    """The adapter; see the module docstring."""

    name = "gurobi"
    products = True

    def full_licence(self) -> bool:
        """Whether Gurobi works here without a size limit; False also if it does not work at all."""
        try:
            return probe()[0]
        except SolverError:
            return False

    def availability(self) -> Availability:
        """See `Solver.availability`."""
        try:
            version = ".".join(str(part) for part in library().gurobi.version())
        except SolverError as error:
            return Availability(works=False, remedy=str(error))
        try:
            full, ends = probe()
        except SolverError as error:
            return Availability(works=False, version=version, licence="none", remedy=str(error))
        if full:
            return Availability(works=True, version=version, licence=f"full ({ends})", limits="none")
        limits = (
            f"{FREE_VARIABLES} variables, {FREE_ROWS} rows,"
            f" {FREE_VARIABLES_WITH_PRODUCTS} variables once products occur; a full licence lifts them"
        )
        return Availability(
            works=True, version=version, licence=f"size-limited, bundled with gurobipy ({ends})", limits=limits
        )

    def open(self, program: Program, threads: int = 1, stop: threading.Event | None = None) -> GurobiSession:
        """Load a program. Raises SolverError if Gurobi or its licence is missing."""
        return GurobiSession(program, threads, stop)
