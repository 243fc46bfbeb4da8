"""The interface of solver adapters: nothing else of a solver reaches the rest of qverify.

An adapter opens a `Session` on a `Program`; the session is asked to minimise one objective after the
other over the same rows (one per rival class) and answers with an `Outcome`. Adapters translate
statuses and numbers; they never judge: `qverify.exact.decide` maps outcomes to verdicts.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qverify.text.brief import Brief

if TYPE_CHECKING:
    import threading

    from qverify.arrays import Array
    from qverify.exact.program import Objective, Program

_PAST = 1e-8
"""Relative distance of a solver's own stop behind the one asked for: ten times its tolerance."""
HUGE = 1e20
"""The size from which solvers mean infinity."""


class Ending(Enum):
    """Why a solve ended."""

    OPTIMAL = "optimal"
    BOUND_REACHED = "the dual bound passed stop_above"
    TARGET_REACHED = "an incumbent fell to stop_below"
    TIME_LIMIT = "time limit"
    INTERRUPTED = "interrupted"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    FAILED = "solver failure"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Outcome(Brief):
    """Status, dual bound and incumbent of one minimisation. Nothing in here is trusted without a check (decide.py).

    `dual_bound`: proved lower bound on the minimum, -inf if none; never above the incumbent, and above
    `stop_above` where the status is BOUND_REACHED (`reconciled` sees to both). `incumbent` and `point`: value and
    variables of the best solution found, None if none. `row_duals` (m,): only for a program without
    integers or products, in the convention `cost = rows.T @ row_duals + reduced costs` for
    minimisation (positive where row_lower is active), else None. `nodes`: branch-and-bound nodes.
    """

    status: Ending
    dual_bound: float
    incumbent: float | None = None
    point: Array | None = None
    row_duals: Array | None = None
    seconds: float = 0.0
    nodes: int = 0
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Version, licence and size limits of a solver on this machine, if it works."""

    works: bool
    version: str = ""
    licence: str = ""
    limits: str = ""
    remedy: str = ""
    """If it does not work: one sentence on how to get it."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Time limit and early stops of a minimisation. None: no such stop."""

    seconds: float | None = None
    stop_above: float | None = None
    """Stop as soon as the dual bound exceeds this."""
    stop_below: float | None = None
    """Stop as soon as an incumbent is at or below this."""


@dataclass(frozen=True, eq=False, repr=False)
class Asked(Brief):
    """One minimisation as it was asked for; `integers`: whether integrality is kept and there is any."""

    objective: Objective
    limits: Limits
    integers: bool


class Session(Protocol):
    """One program, loaded once and solved for several objectives."""

    def minimise(self, objective: Objective, limits: Limits, relax: bool = False) -> Outcome:
        """Minimise the objective. With `relax`, integrality is dropped (an LP: row_duals are returned).

        Raises ModelTooLarge if the licence does not admit the size, SolverError if the solver is unusable.
        """
        ...

    def close(self) -> None:
        """Give the solver's memory (and licence) back."""
        ...


class Solver(Protocol):
    """An adapter. `products`: whether it takes bilinear programs."""

    name: str
    products: bool

    def availability(self) -> Availability:
        """Look, without raising, whether the solver can be used here."""
        ...

    def open(self, program: Program, threads: int = 1, stop: threading.Event | None = None) -> Session:
        """Load a program. Setting `stop` from another thread ends a running minimise soon, as INTERRUPTED."""
        ...


def remaining(until: float | None) -> float | None:
    """Seconds left until a time of `time.monotonic`, at least 0; None for no limit."""
    return None if until is None else max(0.0, until - time.monotonic())


def just_above(limit: float) -> float:
    """The stop to give a solver so that its bound then exceeds `limit`: solvers compare with a tolerance."""
    return limit + _PAST * max(1.0, abs(limit))


def reconciled(status: Ending, bound: float, incumbent: float | None, limits: Limits) -> tuple[Ending, float]:
    """Ending and dual bound, no more optimistic than bound, incumbent and limits admit.

    A bound above the incumbent contradicts it (tolerances), so the lower of the two is reported. A stop whose
    reason the numbers do not bear out is no stop of that kind: FAILED, with the bound kept.
    """
    if incumbent is not None:
        bound = min(bound, incumbent)
    above = limits.stop_above
    if status is Ending.BOUND_REACHED and not (above is not None and bound > above):
        status = Ending.FAILED
    if status is Ending.TARGET_REACHED and incumbent is None:
        status = Ending.FAILED
    return status, bound


def bound_or_nothing(bound: float, huge: float = HUGE) -> float:
    """A solver's dual bound, with every way of saying 'none' (NaN, +-1e20, +-1e100, +-inf) turned into -inf."""
    return float(bound) if np.isfinite(bound) and abs(bound) < huge else -math.inf


def summed_rows(program: Program) -> Any:
    """The matrix of the rows, sorted, with no entry stored twice: solvers refuse duplicates or keep only one."""
    if program.rows.has_canonical_format:
        return program.rows
    rows = program.rows.copy()
    rows.sum_duplicates()
    return rows
