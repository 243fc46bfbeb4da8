"""What is SCIP alone: rows that it takes in another form, and limits beyond its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from qverify.exact import solvers
from qverify.exact.solvers import scip
from qverify.exact.solvers.base import (
    Ending,
    Limits,
)
from tests.support.solving import (
    box_program,
    minimise,
    random_program,
)

pytest.importorskip("pyscipopt")


@pytest.mark.parametrize(
    ("lower", "upper", "ending"),
    [(0.5, np.inf, "INFEASIBLE"), (-np.inf, -0.5, "INFEASIBLE"), (-1.0, 0.0, "OPTIMAL")],
)
def test_a_row_without_coefficients(lower: float, upper: float, ending: str) -> None:
    """It holds at 0 or nowhere, and SCIP would not take it as it is."""
    program, objective = box_program(3)
    program = replace(
        program,
        rows=sparse.vstack([program.rows, sparse.csr_matrix((1, 3))], format="csr"),
        row_lower=np.append(program.row_lower, lower),
        row_upper=np.append(program.row_upper, upper),
    )
    assert minimise(solvers.adapter("scip"), program, objective).status is Ending[ending]


@pytest.mark.parametrize("seconds", [1e20, 1e30, None])
def test_a_limit_beyond_its_own_is_none(seconds: float | None) -> None:
    outcome = minimise(solvers.adapter("scip"), *random_program(1, 3, 3, 4), Limits(seconds=seconds))
    assert outcome.status is Ending.OPTIMAL


def test_every_ending_has_its_word() -> None:
    """The words are those of SCIP: one that it never says would hide an ending."""
    import pyscipopt

    names = {name.lower() for name in dir(pyscipopt.SCIP_STATUS) if not name.startswith("_")}  # type: ignore[attr-defined]
    assert set(scip.ENDINGS) <= names
