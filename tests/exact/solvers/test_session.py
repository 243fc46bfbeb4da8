"""The beginning and the end of a solve, with an adapter that claims anything."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from qverify.errors import SolverError
from qverify.exact.program import Objective, Program
from qverify.exact.solvers.base import (
    Asked,
    Ending,
    Limits,
)
from qverify.exact.solvers.session import AdapterSession, Claim, required_package
from tests.support.solving import (
    linear_optimum,
    random_program,
)


def asked(program: Program, objective: Objective, **limits: Any) -> Asked:
    return Asked(objective, Limits(**limits), False)


def test_the_incumbent_is_computed_from_the_point() -> None:
    program, objective = random_program(1, 0, 6, 5)
    point = (program.lower + program.upper) / 2
    claim = Claim(status=Ending.OPTIMAL, point=point, dual_bound=1e9, nodes=7, message="so it says")
    outcome = AdapterSession(program, None)._finish(asked(program, objective), claim, 0.5)
    value = sum(c * v for c, v in zip(objective.cost, point, strict=True)) + objective.offset
    assert outcome.incumbent == pytest.approx(value, abs=1e-12)
    assert outcome.dual_bound == outcome.incumbent, "a bound is never above a solution"
    assert (outcome.nodes, outcome.seconds, outcome.message) == (7, 0.5, "so it says")


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_of_a_linear_program_is_that_of_its_duals(seed: int) -> None:
    """Whatever bound came with them: random duals never prove more than the optimum, by scipy."""
    program, objective = random_program(seed, 0, 6, 7)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        claim = Claim(status=Ending.OPTIMAL, point=None, dual_bound=1e9, row_duals=rng.normal(size=7))
        outcome = AdapterSession(program, None)._finish(asked(program, objective), claim, 0.0)
        assert outcome.dual_bound <= linear_optimum(program, objective) + 1e-9
        assert outcome.row_duals is not None
        wrong = (outcome.row_duals > 0) & np.isinf(program.row_lower)
        assert not wrong.any() and not ((outcome.row_duals < 0) & np.isinf(program.row_upper)).any()


def test_a_stop_that_the_numbers_contradict_is_a_failure() -> None:
    program, objective = random_program(1, 0, 6, 5)
    claim = Claim(status=Ending.BOUND_REACHED, point=None, dual_bound=1.0)
    session = AdapterSession(program, None)
    assert session._finish(asked(program, objective, stop_above=2.0), claim, 0.0).status is Ending.FAILED
    assert session._finish(asked(program, objective, stop_above=0.5), claim, 0.0).status is Ending.BOUND_REACHED


def test_a_run_that_was_stopped_asks_no_solver() -> None:
    program, _ = random_program(1, 2, 4, 5)
    stop = threading.Event()
    session = AdapterSession(program, stop)
    assert session._interrupted() is None
    stop.set()
    outcome = session._interrupted()
    assert outcome is not None
    assert (outcome.status, outcome.dual_bound, outcome.point) == (Ending.INTERRUPTED, -np.inf, None)
    assert session._integers(False) and not session._integers(True)


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(SolverError, match=r"^Nosolver cannot be loaded .*nosolver.*; get it\.$"):
        required_package("nosolver", "Nosolver", "get it")
