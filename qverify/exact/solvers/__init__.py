"""The solvers by name, and the choice among them. Importing this loads no solver: each loads when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qverify.errors import SolverError, UsageError
from qverify.exact.solvers.gurobi import GurobiSolver
from qverify.exact.solvers.highs import HighsSolver
from qverify.exact.solvers.scip import ScipSolver

if TYPE_CHECKING:
    from qverify.exact.solvers.base import Solver

_GUROBI, _HIGHS, _SCIP = GurobiSolver(), HighsSolver(), ScipSolver()

ADAPTERS: dict[str, Solver] = {solver.name: solver for solver in (_HIGHS, _GUROBI, _SCIP)}


def adapter(name: str) -> Solver:
    """The solver of that name, whether or not it works here. Raises UsageError for an unknown name."""
    if name not in ADAPTERS:
        raise UsageError(f"There is no solver {name!r}; choose one of: auto, {', '.join(ADAPTERS)}.")
    return ADAPTERS[name]


def choose(name: str, program_needs_products: bool) -> Solver:
    """The solver to use: the one named, if it works and takes such programs, or the best there is for 'auto'.

    'auto' is Gurobi if its licence is full; else HiGHS, or SCIP where products occur; else Gurobi with the small
    licence, which may then refuse the size (ModelTooLarge). Raises SolverError, with a remedy, if none works.
    """
    if name != "auto":
        return _working(adapter(name), program_needs_products)
    if _GUROBI.full_licence():
        return _GUROBI
    others: list[Solver] = [_SCIP, _GUROBI] if program_needs_products else [_HIGHS, _GUROBI]
    remedies = []
    for solver in others:
        state = solver.availability()
        if state.works:
            return solver
        remedies.append(state.remedy)
    raise SolverError("No solver works here. " + " ".join(remedies))


def _working(solver: Solver, program_needs_products: bool) -> Solver:
    if program_needs_products and not solver.products:
        able = " or ".join(f"--solver {other.name}" for other in ADAPTERS.values() if other.products)
        raise SolverError(f"{solver.name} cannot solve programs with products of variables; use {able}.")
    state = solver.availability()
    if not state.works:
        raise SolverError(state.remedy)
    return solver


__all__ = ["ADAPTERS", "adapter", "choose"]
