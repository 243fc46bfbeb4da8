"""The beginning and the end of a solve, alike in the sessions of all adapters; the solve itself is each solver's own.

An adapter hands over the `Claim` of its solver. Here that becomes an `Outcome`: the incumbent's value is computed
from the point, the bound of a linear program from its row duals (`duality.dual_value`), and no status or bound is left
that the numbers contradict (`base.reconciled`).
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qverify.errors import SolverError
from qverify.exact.solvers.base import Asked, Ending, Outcome, reconciled
from qverify.exact.solvers.duality import dual_value, feasible_duals
from qverify.text.brief import Brief

if TYPE_CHECKING:
    import threading

    from qverify.arrays import Array
    from qverify.exact.program import Program

BOUNDLESS = (Ending.INFEASIBLE, Ending.FAILED)
"""Endings after which nothing that a solver holds is read: neither points nor bounds."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Claim(Brief):
    """Status, point, bound or duals of one minimisation as its solver claims them; none of it is sound by itself.

    `dual_bound`: its own, in the units of the objective, -inf if none. `row_duals` (m,): those of a linear program,
    from which the bound is then computed instead. `message`: its status in its own words.
    """

    status: Ending
    point: Array | None
    dual_bound: float = -math.inf
    row_duals: Array | None = None
    nodes: int = 0
    message: str = ""


def required_package(module: str, solver: str, remedy: str) -> Any:
    """The Python package of a solver. Raises SolverError with a remedy if it cannot be imported."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SolverError(f"{solver} cannot be loaded ({error}); {remedy}.") from error


class AdapterSession:
    """A `Session` but for the solve itself."""

    def __init__(self, program: Program, stop: threading.Event | None):
        self._program, self._stop = program, stop

    def _interrupted(self) -> Outcome | None:
        """The outcome where the run was stopped before the solver is asked; else None."""
        if self._stop is None or not self._stop.is_set():
            return None
        return Outcome(status=Ending.INTERRUPTED, dual_bound=-math.inf)

    def _integers(self, relax: bool) -> bool:
        """Whether integrality is kept and any variable has it."""
        return not relax and bool(self._program.integer.any())

    def _failed(self, message: str, seconds: float) -> Outcome:
        """The outcome of a solve that the solver broke off with an error."""
        return Outcome(status=Ending.FAILED, dual_bound=-math.inf, seconds=seconds, message=message)

    def _finish(self, asked: Asked, claim: Claim, seconds: float) -> Outcome:
        """The outcome of a solve that took `seconds`."""
        incumbent = None if claim.point is None else asked.objective.value(claim.point)
        duals, bound = claim.row_duals, claim.dual_bound
        if duals is not None:
            duals = feasible_duals(self._program, duals)
            bound = dual_value(self._program, asked.objective, duals)
        status, bound = reconciled(claim.status, bound, incumbent, asked.limits)
        return Outcome(
            status=status,
            dual_bound=bound,
            incumbent=incumbent,
            point=claim.point,
            row_duals=duals,
            seconds=seconds,
            nodes=claim.nodes,
            message=claim.message,
        )
