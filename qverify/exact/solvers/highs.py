"""HiGHS: linear and mixed-integer programs. Open source, always installed, the default.

What an `Outcome` of this adapter guarantees, beyond base.py:
- `incumbent` is `cost . point + offset`, computed in numpy from the point HiGHS returned.
- `dual_bound` of a linear program is recomputed from the row duals (`duality.dual_value`), so HiGHS's word is not
  needed. That of a mixed-integer program is HiGHS's own; it prunes nodes within mip_feasibility_tolerance of the
  incumbent, so its bound may exceed the true optimum by TOLERANCE (absolute) even in exact arithmetic.
- HiGHS releases the GIL while it solves; sessions in several threads run side by side.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import SolverError
from qverify.exact.solvers.base import (
    Asked,
    Availability,
    Ending,
    Limits,
    Outcome,
    bound_or_nothing,
    summed_rows,
)
from qverify.exact.solvers.session import BOUNDLESS, AdapterSession, Claim, required_package

if TYPE_CHECKING:
    from qverify.exact.program import Objective, Program

TOLERANCE = 1e-9
"""Primal, dual and integrality tolerance. HiGHS admits down to 1e-10 and defaults to 1e-6 and 1e-7. Big-M times the
integrality tolerance leaks into a bound, so tight is wanted: 1e-9 took the time of 1e-6 on knapsack MIPs
(0.61 s and 0.69 s; 0.38 s and 0.34 s) and leaves a factor of ten above the tightest admitted."""

SMALLEST_COEFFICIENT = 1e-12
"""HiGHS silently drops matrix entries up to small_matrix_value. The default, 1e-9, would drop narrow weights;
1e-12 is the least it admits."""

SEARCHES = ("mip_heuristic_run_root_reduced_cost", "mip_heuristic_run_rens", "mip_heuristic_run_rins")
"""Heuristics that solve smaller MIPs in search of incumbents. Of no use where a bound is wanted (`stop_above`): without
them the MIPs of 100 MNIST samples took 11.4 s instead of 15.5 s, those that end with a bound 8.2 s instead of 12.9 s.
Versions that do not know an option ignore it."""

ENDINGS = {
    "kOptimal": Ending.OPTIMAL,
    "kModelEmpty": Ending.OPTIMAL,
    "kInfeasible": Ending.INFEASIBLE,
    "kUnboundedOrInfeasible": Ending.INFEASIBLE,  # every variable is boxed
    "kUnbounded": Ending.UNBOUNDED,
    "kTimeLimit": Ending.TIME_LIMIT,
    "kInterrupt": Ending.INTERRUPTED,  # or the reason that `Watch` had
}
"""Endings by the names of HighsModelStatus; FAILED where one is not named here."""
ERROR = "HiGHS reports an error"

REMEDY = "install it with `pip install highspy`"

_scheduler = threading.local()
"""HiGHS keeps one pool of workers per calling thread, whose size it refuses to change unless it is reset."""


@functools.lru_cache(maxsize=1)
def library() -> Any:
    """The package highspy. Raises SolverError if it cannot be imported."""
    return required_package("highspy", "HiGHS", REMEDY)


def _instance(threads: int) -> Any:
    """A silent HiGHS. The compiled class is used directly: the constructor of its Python subclass installs
    a callback before anyone can switch the output off, and so prints a banner to stdout."""
    highs = library().Highs.__base__()
    options: dict[str, Any] = {
        "output_flag": False,
        "threads": threads,
        "parallel": "off" if threads == 1 else "choose",
        "mip_rel_gap": 0.0,
        "mip_abs_gap": 0.0,
        "mip_feasibility_tolerance": TOLERANCE,
        "primal_feasibility_tolerance": TOLERANCE,
        "dual_feasibility_tolerance": TOLERANCE,
        "small_matrix_value": SMALLEST_COEFFICIENT,
    }
    for name, value in options.items():
        if highs.setOptionValue(name, value) != library().HighsStatus.kOk:
            raise SolverError(f"HiGHS {highs.version()} refuses {name}={value}; upgrade it: `pip install -U highspy`.")
    return highs


def load_program(program: Program, threads: int, integers: bool) -> Any:
    """An instance holding the program, with a zero objective; arrays go over whole."""
    package, highs, rows = library(), _instance(threads), summed_rows(program)
    status = highs.passModel(
        program.variable_count,
        program.row_count,
        rows.nnz,
        int(package.MatrixFormat.kRowwise),
        int(package.ObjSense.kMinimize),
        0.0,
        np.zeros(program.variable_count),
        program.lower,
        program.upper,
        program.row_lower,
        program.row_upper,
        rows.indptr.astype(np.int32),
        rows.indices.astype(np.int32),
        rows.data.astype(np.float64),
        (program.integer if integers else np.zeros_like(program.integer)).astype(np.int32),
    )
    if status == package.HighsStatus.kError:
        raise SolverError("HiGHS refuses the program (a coefficient of 1e15 or more?); try `--solver scip`.")
    return highs


class Watch:
    """The callback that ends a solve early: HiGHS asks it at every node and every few simplex iterations.

    A call costs about 40 us (most of it in making the callback's arguments), and a MIP second makes
    some 1,600 of them: below 7 % of the time, within the noise of the measurement.
    """

    def __init__(self, limits: Limits, stop: threading.Event | None):
        self._above, self._below, self.stop = limits.stop_above, limits.stop_below, stop
        self.reason: Ending | None = None
        self.error: BaseException | None = None

    def __call__(self, kind: Any, message: str, out: Any, into: Any, data: Any) -> None:
        try:
            self.reason = self.reason or self._judge(kind, out)
        except BaseException as error:  # HiGHS swallows exceptions, Ctrl-C too: keep it for after the solve
            self.error = error
        if self.reason is not None or self.error is not None:
            into.user_interrupt = True

    def _judge(self, kind: Any, out: Any) -> Ending | None:
        if self.stop is not None and self.stop.is_set():
            return Ending.INTERRUPTED
        if kind != library().cb.HighsCallbackType.kCallbackMipInterrupt:
            return None
        # an infinite bound is HiGHS's "everything pruned": let it finish and say infeasible itself
        if self._above is not None and bound_or_nothing(out.mip_dual_bound) > self._above:
            return Ending.BOUND_REACHED
        if self._below is not None and out.mip_primal_bound <= self._below:
            return Ending.TARGET_REACHED
        return None


def set_objective(highs: Any, objective: Objective) -> None:
    """Have the instance minimise this, over all of its variables."""
    count = len(objective.cost)
    cost = np.ascontiguousarray(objective.cost, dtype=np.float64)
    highs.changeColsCost(count, np.arange(count, dtype=np.int32), cost)
    highs.changeObjectiveOffset(float(objective.offset))


def use_threads(highs: Any, threads: int) -> None:
    """Have the instance work with that many threads, whatever the last one in this thread had."""
    if getattr(_scheduler, "threads", threads) != threads:
        highs.resetGlobalScheduler(True)
    _scheduler.threads = threads


def limit_time(highs: Any, seconds: float | None, integers: bool) -> None:
    """End the next run after so many seconds. HiGHS 1.16 counts time_limit from the start of a MIP's run, but from when
    it was loaded for a linear program without presolve (both tested)."""
    spent = 0.0 if integers else float(highs.getRunTime())
    highs.setOptionValue("time_limit", np.inf if seconds is None else spent + max(float(seconds), 0.0))


def listen(highs: Any, watch: Watch, integers: bool, limits: Limits) -> None:
    """Start only the callback that can matter: an LP can only be interrupted, as a bound in mid-simplex is no proof."""
    kinds = library().cb.HighsCallbackType
    highs.setCallback(watch, None)  # this stops every callback started before
    early = limits.stop_above is not None or limits.stop_below is not None
    if integers and (early or watch.stop is not None):
        highs.startCallback(kinds.kCallbackMipInterrupt)
    if watch.stop is not None:
        highs.startCallback(kinds.kCallbackSimplexInterrupt)


def run_solver(highs: Any, watch: Watch) -> bool:
    """Solve; False if HiGHS reports an error. Raises what was raised in the callback."""
    ok = bool(highs.run() != library().HighsStatus.kError)
    if watch.error is not None:
        raise watch.error
    return ok


def release(highs: Any) -> None:
    """Give the instance's memory back."""
    highs.setCallback(None, None)
    highs.clear()


class HighsSession(AdapterSession):
    """See `Session`. The program and its relaxation are two instances, each loaded when first asked for,
    so that one relaxation starts from the basis of the last whatever was solved between them."""

    def __init__(self, program: Program, threads: int, stop: threading.Event | None):
        super().__init__(program, stop)
        self._threads = threads
        self._instances: dict[bool, Any] = {}

    def minimise(self, objective: Objective, limits: Limits, relax: bool = False) -> Outcome:
        """See `Session.minimise`."""
        if (outcome := self._interrupted()) is not None:
            return outcome
        asked = Asked(objective, limits, self._integers(relax))
        if asked.integers not in self._instances:
            self._instances[asked.integers] = load_program(self._program, self._threads, asked.integers)
        highs, watch = self._instances[asked.integers], Watch(limits, self._stop)
        started = time.perf_counter()
        use_threads(highs, self._threads)
        set_objective(highs, objective)
        for name in SEARCHES:
            highs.setOptionValue(name, limits.stop_above is None)
        limit_time(highs, limits.seconds, asked.integers)
        listen(highs, watch, asked.integers, limits)
        ok = run_solver(highs, watch)
        seconds = time.perf_counter() - started
        return self._finish(asked, _claim(highs, watch, asked), seconds) if ok else self._failed(ERROR, seconds)

    def close(self) -> None:
        """See `Session.close`."""
        for highs in self._instances.values():
            release(highs)
        self._instances.clear()


def _claim(highs: Any, watch: Watch, asked: Asked) -> Claim:
    """The claim of HiGHS after a solve."""
    info, solution, ending = highs.getInfo(), highs.getSolution(), highs.getModelStatus()
    status = ENDINGS.get(ending.name, Ending.FAILED)
    if ending == library().HighsModelStatus.kInterrupt:
        status = watch.reason or status
    known = status not in BOUNDLESS
    feasible = info.primal_solution_status == int(library().SolutionStatus.kSolutionStatusFeasible)
    duals = known and not asked.integers and solution.dual_valid
    return Claim(
        status=status,
        point=np.array(solution.col_value) if known and solution.value_valid and feasible else None,
        dual_bound=bound_or_nothing(info.mip_dual_bound) if known and asked.integers else -math.inf,
        row_duals=np.array(solution.row_dual) if duals else None,
        nodes=max(int(info.mip_node_count), 0) if asked.integers else 0,
        message=highs.modelStatusToString(ending),
    )


class HighsSolver:
    """The adapter; see the module docstring."""

    name = "highs"
    products = False

    def availability(self) -> Availability:
        """See `Solver.availability`."""
        try:
            version = _instance(1).version()
        except SolverError as error:
            return Availability(works=False, remedy=str(error))
        return Availability(works=True, version=version, licence="open source (MIT)", limits="no products of variables")

    def open(self, program: Program, threads: int = 1, stop: threading.Event | None = None) -> HighsSession:
        """Load a program. Raises SolverError if it has products or HiGHS is missing."""
        if len(program.products):
            raise SolverError(
                "HiGHS cannot solve programs with products of variables; use `--solver scip`"
                " (`pip install 'qverify[scip]'`) or `--solver gurobi`."
            )
        library()
        return HighsSession(program, threads, stop)
