"""`qverify solvers`: which solvers work here, under what licence, and which one `auto` takes."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from qverify.console.output import show, show_json, stdout_kept_clean
from qverify.errors import SolverError
from qverify.exact.solvers import ADAPTERS, choose

_PROGRAMS = {"relational": False, "bilinear": True}


def run(as_json: bool) -> int:
    """Run the command; returns the exit status."""
    with stdout_kept_clean():
        found = {name: solver.availability() for name, solver in ADAPTERS.items()}
        auto = {formulation: _auto(products) for formulation, products in _PROGRAMS.items()}
    works = any(state.works for state in found.values())
    if as_json:
        show_json({"solvers": {name: asdict(state) for name, state in found.items()}, "auto": auto})
        return 0 if works else SolverError.exit_code
    table = Table("solver", "works", "version", "licence", "limits", box=None, padding=(0, 2, 0, 0))
    for name, state in found.items():
        table.add_row(name, "yes" if state.works else "no", state.version, state.licence, state.limits)
    show(table, "")
    show(*(f"{name}: {state.remedy}" for name, state in found.items() if not state.works))
    for formulation, taken in auto.items():
        show(f"--solver auto takes {taken or 'none, for none works'} for --formulation {formulation}.")
    return 0 if works else SolverError.exit_code


def _auto(products: bool) -> str | None:
    try:
        return choose("auto", products).name
    except SolverError:
        return None
