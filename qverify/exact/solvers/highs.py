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
import threading
import time
from typing import Any

import numpy as np

from qverify.arrays import Array
from qverify.errors import SolverError
from qverify.exact.program import Program
from qverify.exact.solvers.base import (
    Availability,
    Ending,
    Limits,
    Outcome,
    bound_or_nothing,
    settled,
    summed_rows,
    value_at,
)
from qverify.exact.solvers.duality import dual_value, usable_duals

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

REMEDY = "install it with `pip install highspy`"

_scheduler = threading.local()
"""HiGHS keeps one pool of workers per calling thread, whose size it refuses to change unless it is reset."""


@functools.lru_cache(maxsize=1)
def library() -> Any:
    try:
        import highspy
    except ImportError as error:
        raise SolverError(f"HiGHS cannot be loaded ({error}); {REMEDY}.") from error
    return highspy


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


def load(program: Program, threads: int, integers: bool) -> Any:
    """An instance holding the program, with a zero objective; arrays go over whole."""
    package, highs, rows = library(), _instance(threads), summed_rows(program)
    status = highs.passModel(
        program.variables,
        program.row_count,
        rows.nnz,
        int(package.MatrixFormat.kRowwise),
        int(package.ObjSense.kMinimize),
        0.0,
        np.zeros(program.variables),
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


class HighsSession:
    """See `Session`. The program and its relaxation are two instances, each loaded when first asked for,
    so that one relaxation starts from the basis of the last whatever was solved between them."""

    def __init__(self, program: Program, threads: int, stop: threading.Event | None):
        self._program, self._threads, self._stop = program, threads, stop
        self._columns = np.arange(program.variables, dtype=np.int32)
        self._instances: dict[bool, Any] = {}

    def minimise(self, cost: Array, offset: float, limits: Limits, relax: bool = False) -> Outcome:
        if self._stop is not None and self._stop.is_set():
            return Outcome(Ending.INTERRUPTED, -np.inf, None, None)
        integers = not relax and bool(self._program.integer.any())
        if integers not in self._instances:
            self._instances[integers] = load(self._program, self._threads, integers)
        highs, watch = self._instances[integers], Watch(limits, self._stop)
        started = time.perf_counter()
        self._set(highs, cost, offset, limits)
        limit_time(highs, limits.seconds, integers)
        listen(highs, watch, integers, limits)
        ok = highs.run() != library().HighsStatus.kError
        seconds = time.perf_counter() - started
        if watch.error is not None:
            raise watch.error
        if not ok:
            return Outcome(Ending.FAILED, -np.inf, None, None, seconds=seconds, message="HiGHS reports an error")
        return self._outcome(highs, watch, (integers, limits), (cost, offset, seconds))

    def _set(self, highs: Any, cost: Array, offset: float, limits: Limits) -> None:
        """Objective, heuristics, workers."""
        use_threads(highs, self._threads)
        highs.changeColsCost(len(self._columns), self._columns, np.ascontiguousarray(cost, dtype=np.float64))
        highs.changeObjectiveOffset(float(offset))
        for name in SEARCHES:
            highs.setOptionValue(name, limits.stop_above is None)

    def _outcome(
        self, highs: Any, watch: Watch, how: tuple[bool, Limits], asked: tuple[Array, float, float]
    ) -> Outcome:
        (integers, limits), (cost, offset, seconds) = how, asked
        info, solution = highs.getInfo(), highs.getSolution()
        status = self._status(highs, watch)
        known = status not in (Ending.INFEASIBLE, Ending.FAILED)
        feasible = info.primal_solution_status == int(library().SolutionStatus.kSolutionStatusFeasible)
        point = np.array(solution.col_value) if known and solution.value_valid and feasible else None
        duals, bound = None, -np.inf
        if integers and known:
            bound = bound_or_nothing(info.mip_dual_bound)
        elif known and solution.dual_valid:
            duals = usable_duals(self._program, np.array(solution.row_dual))
            bound = dual_value(self._program, cost, offset, duals)
        incumbent = None if point is None else value_at(cost, offset, point)
        status, bound = settled(status, bound, incumbent, limits)
        return Outcome(
            status,
            bound,
            incumbent,
            point,
            duals,
            seconds,
            max(int(info.mip_node_count), 0) if integers else 0,
            highs.modelStatusToString(highs.getModelStatus()),
        )

    def _status(self, highs: Any, watch: Watch) -> Ending:
        model = library().HighsModelStatus
        meaning = {
            model.kOptimal: Ending.OPTIMAL,
            model.kModelEmpty: Ending.OPTIMAL,
            model.kInfeasible: Ending.INFEASIBLE,
            model.kUnboundedOrInfeasible: Ending.INFEASIBLE,  # every variable is boxed
            model.kUnbounded: Ending.UNBOUNDED,
            model.kTimeLimit: Ending.TIME_LIMIT,
            model.kInterrupt: watch.reason or Ending.INTERRUPTED,
        }
        return meaning.get(highs.getModelStatus(), Ending.FAILED)

    def close(self) -> None:
        for highs in self._instances.values():
            highs.setCallback(None, None)
            highs.clear()
        self._instances.clear()


class HighsSolver:
    """The adapter; see the module docstring."""

    name = "highs"
    products = False

    def availability(self) -> Availability:
        try:
            version = _instance(1).version()
        except SolverError as error:
            return Availability(False, "", "", "", str(error))
        return Availability(True, version, "open source (MIT)", "no products of variables")

    def open(self, program: Program, threads: int = 1, stop: threading.Event | None = None) -> HighsSession:
        """Load a program. Raises SolverError if it has products or HiGHS is missing."""
        if len(program.products):
            raise SolverError(
                "HiGHS cannot solve programs with products of variables; use `--solver scip`"
                " (`pip install 'qverify[scip]'`) or `--solver gurobi`."
            )
        library()
        return HighsSession(program, threads, stop)
