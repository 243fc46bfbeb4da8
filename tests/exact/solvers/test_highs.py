"""What is HiGHS alone: no products, and callbacks that end a solve."""

from __future__ import annotations

from typing import Any

import pytest

from qverify.errors import SolverError
from qverify.exact import solvers
from qverify.exact.solvers import highs
from qverify.exact.solvers.base import (
    Ending,
    Limits,
)
from tests.support.solving import (
    corner_program,
    hard_program,
    linear_optimum,
    minimise,
)


def test_highs_refuses_products() -> None:
    program, *_ = corner_program(0)
    with pytest.raises(SolverError, match=r"--solver scip.*--solver gurobi"):
        solvers.adapter("highs").open(program)
    with pytest.raises(SolverError, match="scip"):
        solvers.choose("highs", program_needs_products=True)


def test_what_is_raised_in_the_callback_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """HiGHS swallows it: Ctrl-C during a solve would be lost."""

    def interrupted(self: Any, kind: int, out: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(highs.Watch, "_judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        minimise(solvers.adapter("highs"), *hard_program(), Limits(stop_above=0.0))


def test_a_linear_program_is_not_ended_by_its_bound() -> None:
    """A bound in the middle of the simplex method is no proof."""
    program, objective = hard_program()
    outcome = minimise(solvers.adapter("highs"), program, objective, Limits(stop_above=-1e9), relax=True)
    assert outcome.status is Ending.OPTIMAL
    assert outcome.dual_bound == pytest.approx(linear_optimum(program, objective), abs=1e-6)


def test_every_ending_has_its_name() -> None:
    names = {status.name for status in highs.library().HighsModelStatus.__members__.values()}
    assert set(highs.ENDINGS) <= names
